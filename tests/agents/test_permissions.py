"""Requests of agents as rows: rules, who may answer, that one answer wins, and what a hostile agent may ask."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from agents import conf as agents_conf
from agents import takeover
from agents.exceptions import AlreadyAnswered
from agents.models import PermissionRequest, Session
from agents.models.permission import Asking
from agents.services import permissions
from agents.services.progress import Watch
from pipeline import conf
from pipeline.actors import Actor
from pipeline.exceptions import BadInput, NotAllowed
from pipeline.logevents import NewEvent, microseconds
from pipeline.models import Membership, StageChange
from pipeline.roles import Role
from tests import factories
from tests.agents import working
from tests.factories import ALICE
from tests.racing import together

RACER = Path(__file__).with_name("racer.py")


def running(**values: Any) -> Session:
    project = factories.project()
    story = working.in_coding(factories.story(project))
    return working.session(story, factories.coder(project), **values)


def ask(session: Session, number: int = 1, command: str = "git push", **body: Any) -> PermissionRequest:
    """As the batch that stored the event would."""
    event = NewEvent("permission", asking(number, command) | body, microseconds(timezone.now()))
    assert session.process is not None
    with transaction.atomic():
        permissions.take(session.process, [event])
    return session.requests.order_by("-pk")[0]


def asking(number: int, command: str) -> dict[str, Any]:
    return {"id": f"r{number}", "tool": "Bash", "input": {"command": command}, "text": ""}


@pytest.mark.django_db
@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("own", [True, False], ids=["own", "another's"])
def test_operators_answer_and_developers_where_they_started_the_story(role: Role, own: bool) -> None:
    session = running()
    user = factories.person("dora", session.project, role)
    if own:
        Session.objects.filter(pk=session.pk).update(started_by=user)
        session.refresh_from_db()
    row = ask(session)
    allowed = role >= Role.OPERATOR or (own and role >= Role.DEVELOPER)
    assert permissions.may_answer(user, session) is allowed
    if allowed:
        permissions.answer(row, allow=True, actor=Actor.of(user))
    else:
        with pytest.raises(NotAllowed, match="dora may not answer"):
            permissions.answer(row, allow=True, actor=Actor.of(user))
    row.refresh_from_db()
    assert row.state == (Asking.ALLOWED if allowed else Asking.WAITING)


@pytest.mark.django_db
def test_a_role_that_is_lost_answers_nothing_more_even_of_ones_own() -> None:
    session = running()
    user = factories.person("dora", session.project, Role.DEVELOPER)
    Session.objects.filter(pk=session.pk).update(started_by=user)
    session.refresh_from_db()
    Membership.objects.all().delete()
    assert not permissions.may_answer(User.objects.get(pk=user.pk), session)


@pytest.mark.django_db(transaction=True)
def test_eight_processes_answer_the_same_requests_and_each_is_answered_once() -> None:
    session = running()
    rows = [ask(session, number, f"make {number}").pk for number in range(12)]
    orders = [
        {
            "verb": "allow" if n % 2 else "deny",
            "name": f"racer-{n}",
            "stories": [],
            "requests": rows[n:] + rows[:n],
        }
        for n in range(8)
    ]
    results = together(RACER, orders, timeout=100)
    granted = [pk for result in results for pk in result["granted"]]
    assert sorted(granted) == rows
    assert sum(int(result["refused"]) for result in results) == 8 * 12 - 12
    winners = {pk: f"racer-{n}" for n, result in enumerate(results) for pk in result["granted"]}
    for row in PermissionRequest.objects.all():
        assert row.answered_by == winners[row.pk]
        odd = int(row.answered_by.removeprefix("racer-")) % 2
        assert row.state == (Asking.ALLOWED if odd else Asking.DENIED)
    assert StageChange.objects.filter(verb="permission").count() == 12


@pytest.mark.django_db
def test_the_time_out_and_a_person_meet_and_the_first_stands() -> None:
    session = running()
    row = ask(session)
    stale = PermissionRequest.objects.select_related("session__story__project", "session__project").get()
    PermissionRequest.objects.update(deadline=timezone.now() - timedelta(seconds=1))
    permissions.sweep()
    with pytest.raises(AlreadyAnswered, match="nobody answered in time"):
        permissions.answer(stale, allow=True, actor=ALICE)
    permissions.sweep()
    row.refresh_from_db()
    assert row.state == Asking.TIMED_OUT and StageChange.objects.filter(verb="permission").count() == 1


@pytest.mark.django_db
def test_a_session_that_ends_takes_its_requests_back() -> None:
    session = running()
    row = ask(session)
    working.end(session, "stopped")
    row.refresh_from_db()
    assert row.state == Asking.WITHDRAWN and row.told_at is None
    with pytest.raises(AlreadyAnswered, match="Nothing is to be done"):
        permissions.answer(row, allow=True, actor=ALICE)


@pytest.mark.django_db
def test_the_sweep_takes_back_what_an_ended_session_left_waiting() -> None:
    session = running()
    row = ask(session)
    Session.objects.update(state="ended", outcome="done")
    permissions.sweep()
    row.refresh_from_db()
    assert row.state == Asking.WITHDRAWN


@pytest.mark.django_db
def test_an_id_that_was_used_before_is_no_new_question() -> None:
    session = running()
    first = ask(session, 1, "git push")
    permissions.answer(first, allow=True, actor=ALICE)
    again = ask(session, 1, "rm -rf /")
    assert again.pk == first.pk and again.subject == "git push"
    with pytest.raises(IntegrityError), transaction.atomic():
        first.pk = None
        first.save(force_insert=True)


@pytest.mark.django_db
def test_what_is_asked_beyond_the_bound_is_denied_at_once() -> None:
    session = running()
    rows = [ask(session, number, f"make {number}") for number in range(agents_conf.MOST_REQUESTS + 2)]
    assert [row.state for row in rows[-3:]] == [Asking.WAITING, Asking.DENIED, Asking.DENIED]
    assert rows[-1].answered_by == "server"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "body",
    [
        {"id": "", "tool": "", "input": None, "text": None},
        {"id": "x" * 500, "tool": "t" * 500, "input": {"command": "a\u202eb" * 5000}},
        {"id": 5, "tool": ["a"], "input": [1, 2], "text": {"a": 1}, "keep": "nothing"},
        {"id": "r", "tool": "Edit", "input": {"file_path": "../../../etc/passwd", "old_string": 5}},
    ],
    ids=["empty", "long", "odd", "outside"],
)
def test_whatever_an_agent_asks_can_be_stored_shown_and_answered(body: dict[str, Any]) -> None:
    session = running()
    row = ask(session, **body)
    assert row.state == Asking.WAITING and permissions.label(row) and len(str(row)) < 300
    permissions.answer(row, allow=False, actor=ALICE, reason="No.\nReally.")
    if "file_path" in row.arguments:
        assert row.subject.endswith("etc/passwd") and not row.subject.startswith("..")


@pytest.mark.django_db
def test_an_answer_says_what_is_wrong_with_it() -> None:
    row = ask(running())
    with pytest.raises(BadInput, match="at most 1000 characters"):
        permissions.answer(row, allow=False, actor=ALICE, reason="x" * 1001)
    with pytest.raises(BadInput, match="NUL"):
        permissions.answer(row, allow=False, actor=ALICE, reason="\x00")


@pytest.mark.django_db
def test_the_rules_are_those_of_the_agent_else_of_the_project() -> None:
    session = running(
        entry={
            "permissions": {"mode": "ask", "rules": [{"tool": "Bash", "match": "make *", "decide": "allow"}]}
        }
    )
    assert ask(session, 1, "make test").answered_by == "rule 1: allow Bash make *"
    assert ask(session, 2, "make test; curl evil").state == Asking.WAITING
    assert not permissions.policy_of(session.project, {}).asks
    assert not StageChange.objects.filter(verb="permission").exists()


def test_waiting_is_no_silence_and_ends_with_the_answer() -> None:
    watch, now = Watch(), timezone.now()
    at, then = microseconds(now - timedelta(seconds=100)), microseconds(now)
    watch.take(
        [NewEvent("permission", asking(1, "a"), at), NewEvent("permission", asking(2, "b"), at)],
        copy="",
        heard=1,
    )
    assert watch.silent_for(10**12, now) == 0.0 and watch.waits(now.timestamp()) == pytest.approx(100)
    watch.take([NewEvent("answered", {"id": "r1"}, then)], copy="", heard=1)
    assert watch.asked == ["r2"]
    watch.take([NewEvent("permission_over", {"id": "r2"}, then)], copy="", heard=1)
    assert watch.waits(now.timestamp() + 50) == pytest.approx(100)
    assert watch.silent_for(10**12, now) > 900
    # One that was refused already waits for nobody.
    watch.take([NewEvent("permission", asking(3, "c") | {"decision": "denied"}, then)], copy="", heard=1)
    assert watch.asked == []


@pytest.mark.django_db
def test_taking_over_is_safe_with_any_name(settings: Any, tmp_path: Path) -> None:
    settings.HUSKIES_HOME = tmp_path / "it's; touch x $(y)"
    session = running()
    session.runtime = "claude-code"
    conf.copy_path(session.key).mkdir(parents=True)
    found = takeover.of(session)
    assert found.path == conf.copy_path(session.key) and found.branch == session.story.branch
    cd, resume = found.commands
    assert cd.startswith("cd '") and f"--resume {session.conversation}" in resume
    assert resume.startswith("CLAUDE_CONFIG_DIR='")
    import shlex

    assert shlex.split(cd) == ["cd", str(conf.copy_path(session.key))]
    assert shlex.split(resume)[0] == f"CLAUDE_CONFIG_DIR={conf.session_path(session.key) / 'config'}"
