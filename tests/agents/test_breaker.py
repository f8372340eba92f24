"""One circuit breaker per credential, agent and runtime; and the timers of stories, which outlive nothing."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from agents.models import Agent, Credential, RuntimeCheck, Session
from agents.services import breaker, pool, roster
from agents.services.assigning import auto_assign
from pipeline import moves
from pipeline.actors import SERVER, Actor
from pipeline.exceptions import NotAllowed, Refused
from pipeline.models import Act, Event, Project, Story
from pipeline.projectfile import ProjectFile, registered_sections
from pipeline.projectfile.schema import Gate
from pipeline.services import stories
from tests import factories
from tests.agents.working import end, in_coding, session
from tests.factories import ALICE

pytestmark = pytest.mark.django_db


def shared(number: int = 2) -> tuple[Project, list[Agent], Credential]:
    """Agents that log in with one credential."""
    project = factories.project()
    credential = Credential.objects.create(name="team", base_urls=[])
    coders = [
        factories.coder(project, n, entry={"script": [], "credential": "team"}) for n in range(1, number + 1)
    ]
    return project, coders, credential


def working(project: Project, agent: Agent, **values: Any) -> Session:
    return session(in_coding(factories.story(project)), agent, **values)


def fresh(row: Any) -> Any:
    row.refresh_from_db()
    return row


def in_an_hour() -> float:
    return timezone.now().timestamp() + 3600


def test_a_limit_holds_every_start_with_the_credential_until_its_reset_and_then_lets_them_go_on() -> None:
    project, coders, credential = shared()
    until = in_an_hour()
    limited = end(working(project, coders[0]), "rate_limited", "The account's limit is reached.", until=until)
    story = Story.objects.get(pk=limited.story_id)
    assert fresh(credential).paused_until.timestamp() == pytest.approx(until, abs=1)
    assert story.not_before == credential.paused_until
    assert (story.stage, story.retries, story.crashes, story.idle_total) == ("coding", 0, 0, 0)
    assert "It goes on by itself at" in story.waiting_for
    queued = pool.start_story(factories.story(project), actor=ALICE).queued
    assert "credential team is paused: The account's limit is reached. It is tried again at" in queued
    assert auto_assign() == 0
    past = timezone.now() - timedelta(seconds=1)
    Credential.objects.update(paused_until=past)
    Story.objects.update(not_before=past)
    breaker.sweep()
    assert (fresh(credential).paused_for, credential.paused_until) == ("", None)
    assert auto_assign() == 2
    assert list(Act.objects.values_list("verb", flat=True)) == ["credential.pause", "credential.lift"]


def test_a_later_reset_moves_every_story_that_waits_and_an_earlier_one_moves_none() -> None:
    project, coders, credential = shared()
    first, second = (working(project, coder) for coder in coders)
    end(first, "rate_limited", until=in_an_hour())
    end(second, "rate_limited", until=in_an_hour() + 3600)
    waits = set(Story.objects.values_list("not_before", flat=True))
    assert waits == {fresh(credential).paused_until}
    with transaction.atomic():
        breaker.limit(first, "again", in_an_hour())
    assert waits == {fresh(credential).paused_until}


@pytest.mark.parametrize("until", [None, 1.0, 9e12])
def test_without_a_reset_that_can_be_believed_the_wait_doubles_with_each_refusal(until: float | None) -> None:
    project, coders, credential = shared(1)
    story = in_coding(factories.story(project))
    waits = []
    for _ in range(3):
        Credential.objects.update(paused_for="", paused_until=None)
        now = timezone.now()
        end(session(story, coders[0]), "rate_limited", until=until)
        waits.append(round((fresh(credential).paused_until - now).total_seconds()))
    assert waits == [60, 120, 240]


def test_an_overload_is_nobodys_account_and_only_the_story_waits() -> None:
    project, coders, credential = shared()
    over = end(working(project, coders[0]), "overloaded", "The provider is overloaded.")
    assert fresh(credential).paused_for == ""
    assert Story.objects.get(pk=over.story_id).not_before > timezone.now()
    assert pool.start_story(factories.story(project), actor=ALICE).session is not None


def test_a_limit_of_a_session_without_a_credential_is_its_storys_alone() -> None:
    project = factories.project()
    limited = end(working(project, factories.coder(project)), "rate_limited", until=in_an_hour())
    assert Story.objects.get(pk=limited.story_id).not_before is not None
    assert (
        not RuntimeCheck.objects.exists() and pool.start_story(factories.story(project), actor=ALICE).session
    )


@pytest.mark.parametrize("kind", ["auth", "billing"])
def test_a_refused_key_holds_its_credential_until_a_person_lifts_it_and_that_frees_the_blocked_story(
    kind: str,
) -> None:
    project, coders, credential = shared()
    refused = end(working(project, coders[0]), kind, "The key was refused: check it.")
    story = Story.objects.get(pk=refused.story_id)
    assert (story.stage, story.reason, story.retries) == ("blocked", "The key was refused: check it.", 0)
    assert (fresh(credential).paused_for, credential.paused_until) == ("The key was refused: check it.", None)
    with transaction.atomic():
        breaker.limit(refused, "a limit", in_an_hour())
    assert fresh(credential).paused_until is None, "a limit does not turn it into a wait"
    other = factories.story(project)
    assert "credential team is paused" in pool.start_story(other, actor=ALICE).queued
    assert any("credential team is paused" in text for text in Event.objects.values_list("text", flat=True))
    with pytest.raises(NotAllowed):
        breaker.lift_credential(credential, actor=Actor("bob", factories.person("bob")))
    breaker.lift_credential(credential, actor=ALICE)
    assert fresh(story).stage == "coding" and auto_assign() == 2
    with pytest.raises(Refused, match="not paused"):
        breaker.lift_credential(credential, actor=ALICE)


def test_without_a_credential_a_refused_log_in_pauses_the_agent() -> None:
    project = factories.project()
    coder = factories.coder(project)
    end(working(project, coder), "auth", "Not logged in: add a credential.")
    assert (fresh(coder).paused_for, coder.paused_by) == ("Not logged in: add a credential.", "")


def test_a_model_that_is_not_there_pauses_the_agent_and_others_take_its_next_stories() -> None:
    project = factories.project()
    coder, other = factories.coder(project), factories.coder(project, 2)
    wrong = end(working(project, coder), "bad_model", "There is no such model: change it.")
    assert fresh(coder).paused_for == "There is no such model: change it."
    started = pool.start_story(factories.story(project), actor=ALICE)
    assert started.session and started.session.agent == other
    roster.resume_agent(coder, actor=ALICE)
    assert Story.objects.get(pk=wrong.story_id).stage == "coding", "what its pause had blocked goes on"


def test_a_program_that_does_not_run_pauses_its_runtime_on_this_host_alone() -> None:
    project = factories.project()
    coder = factories.coder(project)
    unfit = end(working(project, coder), "config", "The flag is unknown.", detail="program")
    pause = RuntimeCheck.objects.get()
    assert (pause.runtime, pause.host) == ("scripted", unfit.host)
    assert "scripted is unfit on" in pool.start_story(factories.story(project), actor=ALICE).queued
    breaker.lift_runtime(pause, actor=ALICE)
    assert Story.objects.get(pk=unfit.story_id).stage == "coding" and auto_assign() == 1
    with pytest.raises(Refused, match="not paused"):
        breaker.lift_runtime(pause, actor=ALICE)


def test_a_command_of_an_agents_own_that_does_not_run_pauses_that_agent_alone() -> None:
    project = factories.project()
    coder = factories.coder(project, entry={"command": "no-such-program"})
    end(working(project, coder), "config", "It was not found.", detail="program")
    assert fresh(coder).paused_for == "It was not found." and not RuntimeCheck.objects.exists()


def test_a_warning_throttles_nobody_and_is_forgotten() -> None:
    project, coders, credential = shared()
    breaker.throttle(working(project, coders[0]), in_an_hour())
    assert fresh(credential).throttled_until > timezone.now()
    assert pool.start_story(factories.story(project), actor=ALICE).session is not None
    Credential.objects.update(throttled_until=timezone.now())
    breaker.sweep()
    assert fresh(credential).throttled_until is None


def waiting_on_a_timer() -> Story:
    project, coders, _ = shared(1)
    limited = end(working(project, coders[0]), "rate_limited", until=in_an_hour())
    story = Story.objects.select_related("project").get(pk=limited.story_id)
    assert story.not_before is not None
    return story


def test_when_the_time_comes_the_agent_of_the_stage_goes_on_and_not_a_coder() -> None:
    project, _, _ = shared(1)
    assert project.version is not None
    gated = replace(
        ProjectFile.from_json(project.version.data, sections=registered_sections()), gate=Gate("sh check.sh")
    )
    type(project.version).objects.update(data=gated.to_json())
    looker = factories.coder(project, 2, role="qa", entry={"script": [], "credential": "team"})
    story = in_coding(factories.story(project, qa="agent"))
    with transaction.atomic():
        story = moves.move(story, "to_qa", actor=SERVER)
    end(session(story, looker), "rate_limited", until=in_an_hour())
    assert fresh(story).not_before is not None and auto_assign() == 0
    Story.objects.update(not_before=timezone.now())
    Credential.objects.update(paused_until=timezone.now())
    breaker.sweep()
    assert auto_assign() == 1
    assert [one.agent for one in Session.objects.live()] == [looker] and fresh(story).stage == "qa"


@pytest.mark.parametrize("verb", ["hold", "freeze", "park", "archive", "block"])
def test_a_timer_outlives_no_act_of_a_person(verb: str) -> None:
    story = waiting_on_a_timer()
    stories.perform(story, verb, actor=ALICE, why="not now")
    assert fresh(story).not_before is None
    Credential.objects.update(paused_until=timezone.now() - timedelta(seconds=1))
    breaker.sweep()
    assert auto_assign() == 0, "when its time comes it starts nothing"


@pytest.mark.parametrize("stage", ["qa", "merge", "done", "merge_failure"])
def test_a_timer_of_coding_is_gone_in_every_other_stage(stage: str) -> None:
    story = waiting_on_a_timer()
    way = {
        "qa": ["to_qa"],
        "merge": ["to_merge"],
        "merge_failure": ["to_merge", "merge_failed"],
        "done": ["to_merge", "land"],
    }
    with transaction.atomic():
        for verb in way[stage]:
            Story.objects.filter(pk=story.pk).update(not_before=timezone.now() + timedelta(hours=1))
            more = (
                {"landed": "1" * 40} if verb == "land" else {"reason": "r"} if verb == "merge_failed" else {}
            )
            story = moves.move(story, verb, actor=SERVER, **more)
    assert story.stage == stage and story.not_before is None
