"""People and agents that run: requests for leave and their answers, messages, interrupts; also over the server's death."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from agents.exceptions import AlreadyAnswered, CannotHear, WrongStage
from agents.models import Message, PermissionRequest, Session
from agents.models.permission import Asking
from agents.services import ordering, permissions, pool, talking, telling
from pipeline import conf
from pipeline.actors import Actor
from pipeline.models import StageChange, Story
from pipeline.processes import spawn
from tests.e2e.shop import Shop, Step, write
from tests.factories import ALICE
from tests.logs import events, words
from tests.pipeline.worlds import QuickServer

BOB = Actor("bob")


def request(command: str = "git push", tool: str = "Bash", **more: object) -> Step:
    return {"request": {"tool": tool, "input": {"command": command}, **more}}


def asked(shop: Shop, story: Story, number: int = 1) -> PermissionRequest:
    """The story's n-th request, once it is there."""
    rows = PermissionRequest.objects.filter(session__story=story).order_by("pk")
    shop.server.until(lambda: rows.count() >= number, what=f"request {number} of {story.label}", seconds=30)
    return rows.select_related("session__story__project", "session__project")[number - 1]


def ended(shop: Shop, story: Story) -> Session:
    """The newest session, once its agent's end is stored."""
    return shop.until_ended(shop.sessions(story)[-1])


def second_ended(shop: Shop, story: Story) -> Session:
    shop.server.until(lambda: len(shop.sessions(story)) == 2, what="a second session", seconds=30)
    return ended(shop, story)


def lines(shop: Shop, story: Story, kind: str = "text") -> list[str]:
    newest = shop.sessions(story)[-1]
    return [event.body.get("text", "") for event in events(newest.process, kind)]


def test_a_request_waits_for_a_person_and_the_agent_goes_on_with_the_answer(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [request(), request("rm -rf x"), write("a.txt")])
    row = asked(shop, story)
    assert (row.tool, row.subject, row.state) == ("Bash", "git push", Asking.WAITING)
    permissions.answer(row, allow=True, actor=ALICE)
    telling.tell(row.session_id)
    second = asked(shop, story, 2)
    permissions.answer(second, allow=False, actor=BOB, reason="Not that one.")
    with pytest.raises(AlreadyAnswered, match=r"denied by bob at .* The first answer stands"):
        permissions.answer(second, allow=True, actor=ALICE)
    telling.tell(row.session_id)
    ended(shop, story)
    assert lines(shop, story)[:2] == ["Bash was allowed", "Bash was denied: Not that one."]
    assert [text.split(" (")[0] for text in lines(shop, story, "answered")] == [
        "Bash git push: allowed",
        "Bash rm -rf x: denied",
    ]
    told = StageChange.objects.filter(story=story, verb="permission").order_by("pk")
    assert [(each.actor, each.why.partition(": ")[2]) for each in told] == [
        ("alice", "allowed Bash git push"),
        ("bob", "denied Bash rm -rf x: Not that one."),
    ]


def test_allowed_for_the_session_the_same_call_is_not_asked_again(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [request("make"), request("make"), request("make all"), write("a.txt")])
    permissions.answer(asked(shop, story), allow=True, actor=ALICE, for_session=True)
    third = asked(shop, story, 3)
    second = asked(shop, story, 2)
    assert (second.state, second.answered_by) == (Asking.ALLOWED, "alice (for this session)")
    assert third.state == Asking.WAITING, "another call is another question"
    permissions.answer(third, allow=True, actor=ALICE)
    ended(shop, story)
    # A person's answers are in the history; what followed from one stands with the request.
    assert StageChange.objects.filter(story=story, verb="permission").count() == 2


def test_rules_of_the_project_answer_by_themselves(shop: Shop) -> None:
    rules = [
        {"tool": "Bash", "match": "git push*", "decide": "deny"},
        {"tool": "Bash", "match": "git *", "decide": "allow"},
    ]
    project = shop.open(permissions=rules)
    story = shop.start(project, [request("git push"), request("git status"), write("a.txt")])
    ended(shop, story)
    assert lines(shop, story)[0].startswith("Bash was denied: A rule of the project")
    assert lines(shop, story)[1] == "Bash was allowed"
    rows = PermissionRequest.objects.order_by("pk")
    assert [row.answered_by for row in rows] == [
        "rule 1: deny Bash git push*",
        "rule 2: allow Bash git *",
    ]


def test_an_answer_is_told_by_the_server_that_comes_after_a_death(shop: Shop) -> None:
    """The web process that wrote it, the queue and the supervisor die before the runner heard it."""
    project = shop.open()
    story = shop.start(project, [request(), write("a.txt")])
    row = asked(shop, story)
    shop.server.supervisor.close()
    permissions.answer(row, allow=True, actor=ALICE)  # and nobody tells it
    row.refresh_from_db()
    assert (row.state, row.told_at) == (Asking.ALLOWED, None)
    shop.server = QuickServer()
    ended(shop, story)
    row.refresh_from_db()
    assert row.told_at is not None and lines(shop, story)[0] == "Bash was allowed"
    assert PermissionRequest.objects.count() == 1


def test_told_again_and_again_it_is_passed_on_once(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [request(), {"wait_told": 30}, {"wait_told": 0.2}, write("a.txt")])
    row = asked(shop, story)
    message, _ = talking.message(row.session, "Use the blue one.", actor=BOB)
    permissions.answer(row, allow=True, actor=ALICE)
    for _ in range(3):
        # As after deaths between telling and writing that down.
        PermissionRequest.objects.update(told_at=None)
        Message.objects.update(state="waiting", told_at=None, told_in=None)
        telling.tell(row.session_id)
    ended(shop, story)
    said = lines(shop, story)
    assert [line for line in said if "I was told" in line] == [
        "I was told: bob, a person who follows your work, says:\n\nUse the blue one."
    ]
    assert lines(shop, story, "said") == ["Use the blue one."]
    message.refresh_from_db()
    assert (message.state, message.told_in_id) == ("told", row.session_id)


def test_nobody_answers_and_the_time_out_denies(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [request(), write("a.txt")])
    row = asked(shop, story)
    late = timedelta(seconds=600)
    PermissionRequest.objects.update(asked_at=row.asked_at - late, deadline=row.deadline - late)
    ended(shop, story)
    row.refresh_from_db()
    assert (row.state, row.answered_by) == (Asking.TIMED_OUT, "server")
    assert lines(shop, story)[0].startswith("Bash was denied: Nobody answered within 600 seconds")
    note = StageChange.objects.get(story=story, verb="permission")
    assert note.actor == "server" and "nobody answered" in note.why
    with pytest.raises(AlreadyAnswered, match="nobody answered in time"):
        permissions.answer(row, allow=True, actor=ALICE)


def test_what_no_longer_waits_is_withdrawn_by_the_program_and_by_the_end(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [request(seconds=0.1), request("sleep"), write("a.txt")])
    second = asked(shop, story, 2)
    first = asked(shop, story)
    assert first.state == Asking.WITHDRAWN
    with pytest.raises(AlreadyAnswered, match="no longer waits"):
        permissions.answer(first, allow=True, actor=ALICE)
    pool.stop_story(story, actor=ALICE)
    shop.until_ended(shop.sessions(story)[0])
    second.refresh_from_db()
    assert second.state == Asking.WITHDRAWN


def test_the_wait_for_a_person_is_no_silence_and_not_the_sessions_time(shop: Shop) -> None:
    project = shop.open(permissions="ask")
    coder = project.agents.get(name="coder-1")
    coder.entry |= {"inactivity_timeout": 0.3, "max_session_time": 60.0}
    coder.save()
    story = shop.start(project, [request(), write("a.txt")])
    row = asked(shop, story)
    assert ordering.agent_spec(row.session)["limits"]["wall"] == 60.0 + 3600.0
    begun = timezone.now()
    shop.server.until(lambda: (timezone.now() - begun).total_seconds() > 0.8, what="a while", seconds=5)
    assert shop.sessions(story)[0].stop_requested_at is None
    permissions.answer(row, allow=True, actor=ALICE)
    ended(shop, story)
    (session,) = shop.sessions(story)
    assert session.outcome == "done" and session.process is not None
    assert session.process.parser_state["watch"]["waited"] > 0.5


def test_an_agent_that_cannot_ask_is_not_started_where_it_should(shop: Shop) -> None:
    project = shop.open(permissions="ask")
    coder = project.agents.get(name="coder-1")
    coder.runtime = "command"
    coder.entry |= {"command": "true"}
    coder.save()
    story = shop.start(project, [])
    shop.until_stage(story, "blocked")
    assert "command cannot ask" in shop.fresh(story).reason


def test_a_message_reaches_a_running_agent_and_an_ended_one_goes_on_with_it(shop: Shop) -> None:
    project = shop.open(default_qa="human")
    story = shop.start(
        project, [{"say": "I begin"}, {"wait_told": 30}, {"end": {"outcome": "crashed"}}], [write("a.txt")]
    )
    first = shop.until_line(story, "I begin")
    talking.message(first, "Make it red.", actor=BOB)
    shop.until_line(story, "Make it red.")
    second_ended(shop, story)
    assert "bob" in words(shop.sessions(story)[0].process, "said")
    # Its gate is green and it waits for a person's eyes: there a coder is told by a rejection.
    shop.until_stage(story, "qa")
    with pytest.raises(WrongStage, match="Reject it with these words"):
        talking.message(shop.sessions(story)[-1], "More.", actor=BOB)


def test_a_stopped_agent_is_taken_up_again_by_a_message(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [{"say": "I begin"}, {"wait_told": 30}], [write("a.txt")])
    first = shop.until_line(story, "I begin")
    assert talking.interrupt(first, actor=BOB).startswith("its work is saved")
    shop.until_ended(first)
    shop.server.idle()
    story = shop.fresh(story)
    assert story.held_for == "stopped by bob"
    first.refresh_from_db()
    row, queued = talking.message(first, "Go on, but make it red.", actor=BOB)
    assert queued == ""
    second_ended(shop, story)
    second = shop.sessions(story)[-1]
    assert second.resumed and second.conversation == first.conversation
    assert second.prompt.count("Go on, but make it red.") == 1 and "bob, a person" in second.prompt
    row.refresh_from_db()
    assert (row.state, row.told_in_id) == ("told", second.pk)


def test_words_for_a_program_that_cannot_be_interrupted_stop_it_and_go_on_with_them(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [{"say": "I begin"}, {"hang": True}], [write("a.txt")])
    first = shop.until_line(story, "I begin")
    assert "goes on with these words" in talking.interrupt(first, actor=BOB, text="Do it another way.")
    second_ended(shop, story)
    first, second = shop.sessions(story)
    assert first.outcome == "stopped" and "Do it another way." in second.prompt
    assert Message.objects.get().told_in_id == second.pk


def test_a_message_that_came_too_late_goes_to_the_next_session(shop: Shop) -> None:
    """Written down while it ran, and never passed on."""
    project = shop.open()
    story = shop.start(project, [{"say": "I begin"}, {"hang": True}], [write("a.txt")])
    first = shop.until_line(story, "I begin")
    pool.stop_story(story, actor=ALICE)
    shop.server.until(lambda: not spawn.runner_alive(conf.runs(), first.key), what="a dead runner")
    row, _ = talking.message(first, "Think of the tests.", actor=BOB)
    shop.until_ended(first)
    shop.server.idle()
    assert Message.objects.get().state == "waiting"
    pool.start_story(shop.fresh(story), actor=ALICE)
    second_ended(shop, story)
    assert "Think of the tests." in shop.sessions(story)[-1].prompt
    row.refresh_from_db()
    assert row.told_in == shop.sessions(story)[-1]


def test_a_program_that_takes_no_message_says_so_by_name(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [{"say": "I begin"}, {"hang": True}])
    session = shop.until_line(story, "I begin")
    session.runtime = "gemini-cli"
    with pytest.raises(CannotHear, match="gemini-cli, which takes no message while it works"):
        talking.message(session, "Hello", actor=BOB)
