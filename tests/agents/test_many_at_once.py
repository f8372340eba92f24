"""One pass claims several stories in one transaction: it counts what it has granted, and one that cannot be does not take the others down."""

from __future__ import annotations

import re

import psycopg
import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from agents.models import Budget, Limit, Session
from agents.services import assigning, pool, preflight
from pipeline.models import Event, EventCounter, Process, Project, StageChange, Story
from tests import factories
from tests.racing import database_url

pytestmark = pytest.mark.django_db(transaction=True)


def waiting(project: Project, number: int) -> list[Story]:
    stories = [factories.story(project) for _ in range(number)]
    Story.objects.filter(project=project).update(**{"stage": "coding"})
    return stories


def project_with(coders: int) -> Project:
    project = factories.project()
    factories.capacity(1000)
    for number in range(coders):
        factories.coder(project, number)
    return project


def sessions_made(queries: CaptureQueriesContext) -> list[str]:
    return [q["sql"] for q in queries if re.match(r'INSERT INTO "agents_session"', q["sql"])]


def test_one_pass_claims_them_in_one_transaction_each_with_all_its_rows() -> None:
    project = project_with(8)
    stories = waiting(project, 6)
    before = EventCounter.objects.filter(pk=project.pk).values_list("number", flat=True).first() or 0
    with CaptureQueriesContext(connection) as queries:
        assert assigning.auto_assign() == 6
    assert len(sessions_made(queries)) == 1
    live = list(Session.objects.live().order_by("pk").select_related("story", "process", "agent"))
    assert [s.story_id for s in live] == [story.pk for story in stories], "in the fair order"
    assert len({s.agent_id for s in live}) == 6 == Process.objects.filter(kind="agent").count()
    for session, story in zip(live, stories, strict=True):
        assert session.process is not None and session.process.key == session.key
        assert (
            session.process.story_id == story.pk and session.fence == story.fence + 1 == session.story.fence
        )
        [row] = StageChange.objects.filter(story=story, verb="claim")
        assert row.why == f"{session.agent.name}, session {session.pk}"
    numbers = list(
        Event.objects.filter(project=project, number__gt=before)
        .order_by("number")
        .values_list("number", "story")
    )
    assert numbers == [(before + n, story.pk) for n, story in enumerate(stories, 1)]


def test_more_than_one_transaction_holds_are_claimed_in_the_next() -> None:
    project = project_with(assigning.AT_ONCE + 3)
    waiting(project, assigning.AT_ONCE + 3)
    with CaptureQueriesContext(connection) as queries:
        assert assigning.auto_assign() == assigning.AT_ONCE + 3
    assert len(sessions_made(queries)) == 2


def test_what_one_pass_has_granted_counts_for_the_next_grant_of_the_same_pass() -> None:
    project = project_with(8)
    Limit.objects.create(scope="project", subject=str(project.pk), most=3)
    stories = waiting(project, 6)
    assert assigning.auto_assign() == 3
    reasons = list(
        Story.objects.filter(pk__in=[s.pk for s in stories[3:]]).values_list("waiting_for", flat=True)
    )
    assert all("3 of 3 agents are at work" in reason for reason in reasons), reasons


def test_where_a_budget_counts_each_grant_is_looked_at_after_the_one_before_is_written() -> None:
    project = project_with(4)
    Budget.objects.create(scope="server", subject="", period="total", tokens=1000)
    waiting(project, 3)
    with CaptureQueriesContext(connection) as queries:
        assert assigning.auto_assign() == 3
    assert len(sessions_made(queries)) == 3


def test_one_that_the_database_refuses_does_not_take_the_others_down(monkeypatch: pytest.MonkeyPatch) -> None:
    project = project_with(4)
    stories = waiting(project, 4)
    whole = pool.insert_all

    def refused(rows):  # type: ignore[no-untyped-def]
        if any(isinstance(row, Session) and row.story_id == stories[1].pk for row in rows):
            raise IntegrityError("a session of somebody who takes no lock")
        return whole(rows)

    monkeypatch.setattr(pool, "insert_all", refused)
    assert assigning.auto_assign() == 3
    assert set(Session.objects.values_list("story", flat=True)) == {s.pk for s in stories} - {stories[1].pk}
    assert Process.objects.count() == 3, "nothing of the refused one stays"
    stories[1].refresh_from_db()
    assert "taken in the same moment" in stories[1].waiting_for and stories[1].fence == 0


def test_a_story_that_was_taken_between_the_look_and_the_lock_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = project_with(4)
    stories = waiting(project, 3)
    whole = assigning._claim_some

    def meanwhile(planned, served):  # type: ignore[no-untyped-def]
        Story.objects.filter(pk=stories[0].pk).update(frozen=True)
        return whole(planned, served)

    monkeypatch.setattr(assigning, "_claim_some", meanwhile)
    assert assigning.auto_assign() == 2
    assert not Session.objects.filter(story=stories[0]).exists()


def test_all_who_wait_are_told_their_places_in_one_transaction() -> None:
    project = project_with(1)
    first, *others = waiting(project, 12)
    with CaptureQueriesContext(connection) as queries:
        assert assigning.auto_assign() == 1
    begun = [q["sql"] for q in queries if q["sql"].startswith("BEGIN")]
    assert len(begun) == 2 or connection.vendor == "postgresql", "the claim's and the telling's"
    said = list(
        Story.objects.filter(pk__in=[o.pk for o in others])
        .order_by("pk")
        .values_list("waiting_for", flat=True)
    )
    assert "second in line" in said[1] and "11th in line" in said[10] and all(said)
    told = set(Event.objects.filter(project=project, kind="story").values_list("story", flat=True))
    assert told == {first.pk, *(story.pk for story in others)}


@pytest.mark.on_postgresql
def test_a_story_that_something_happens_to_just_now_keeps_nobody_from_being_told() -> None:
    project = project_with(1)
    _, held, free = waiting(project, 3)
    with psycopg.connect(database_url()) as other:
        other.execute("SELECT 1 FROM pipeline_story WHERE id = %s FOR UPDATE", [held.pk])
        assert assigning.auto_assign() == 1
    held.refresh_from_db()
    free.refresh_from_db()
    assert "second in line" in free.waiting_for and held.waiting_for == ""
    assert assigning.auto_assign() == 0
    held.refresh_from_db()
    assert held.waiting_for, "the next pass tells it"


def test_a_runtime_is_checked_once_however_many_agents_have_it() -> None:
    project_with(5)
    assert preflight.used() == ["scripted"]
