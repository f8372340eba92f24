"""Statements that are made once say the same as the ORM's own, on whichever connection and with whichever values they are called."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, connections
from django.db.models import F
from django.db.models.sql import Query
from django.utils import timezone

from agents.models import Session
from agents.services import assigning, pool
from agents.services.fairness import Served
from pipeline.models import Event, Project, StageChange, Story
from pipeline.prepared import Select, Update, insert
from tests import factories
from tests.factories import ALICE

WITH_PROJECT: Select[Story] = Select(lambda pk: Story.objects.select_related("project").filter(pk=pk), int)
BY_TITLE: Select[tuple[object, ...]] = Select(
    lambda project, title: Story.objects.filter(project=project, title=title).values_list(
        "number", "stage_at"
    ),
    *(int, str),
)
RENAME = Update(
    lambda pk, title: (Story.objects.filter(pk=pk), {"title": title, "fence": F("fence") + 1}), *(int, str)
)


@pytest.fixture
def project(db: None) -> Project:
    factories.capacity()
    return factories.project()


def fields(row: Story | Project) -> dict[str, object]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def test_rows_and_their_relations_are_those_of_the_orm(project: Project) -> None:
    stories = [factories.story(project, title=f"story {n}") for n in range(3)]
    project.refresh_from_db()
    for story in stories:
        [found] = WITH_PROJECT(story.pk)
        known = Story.objects.get(pk=story.pk)
        assert fields(found) == fields(known) and found == known and not found._state.adding
        assert found._state.fields_cache["project"] == project and fields(found.project) == fields(project)
    assert WITH_PROJECT(10**6) == [] and WITH_PROJECT.first(10**6) is None


def test_values_are_converted_and_bound_anew_at_each_call(project: Project) -> None:
    one, two = factories.story(project, title="one"), factories.story(project, title="' OR 1=1 --")
    for story in (one, two, one):
        known = Story.objects.values_list("number", "stage_at").get(pk=story.pk)
        assert BY_TITLE(project.pk, story.title) == [known]


def test_an_update_tells_how_many_rows_it_changed(project: Project) -> None:
    story = factories.story(project)
    assert RENAME(story.pk, "new") == 1 and RENAME(10**6, "new") == 0
    assert Story.objects.values_list("title", "fence").get(pk=story.pk) == ("new", story.fence + 1)


def test_an_inserted_row_has_its_number_its_defaults_and_its_time(project: Project) -> None:
    story, before = factories.story(project), timezone.now()
    row = insert(
        StageChange(story=story, verb="note", from_stage="backlog", to_stage="backlog", actor="alice")
    )
    known = StageChange.objects.get(pk=row.pk)
    assert (known.story, known.why, row._state.adding) == (story, "", False) and known.at == row.at >= before
    other = insert(Event(project=project, number=7, kind="story", text="x"))
    assert (other.pk, other.number) == Event.objects.values_list("pk", "number").get(text="x")


def test_a_value_that_the_sql_has_lost_is_noticed(project: Project) -> None:
    lost: Select[Story] = Select(lambda pk, other: Story.objects.filter(pk=pk), *(int, int))
    with pytest.raises(AssertionError, match="got lost"):
        lost(1, 2)


@pytest.mark.django_db(transaction=True)
def test_each_thread_has_statements_of_its_own_connection() -> None:
    factories.capacity()
    story = factories.story(factories.project())
    found: list[object] = [WITH_PROJECT.first(story.pk)]

    def other() -> None:
        try:
            found.append(WITH_PROJECT.first(story.pk))
            found.append(connections["default"])
        finally:
            connections.close_all()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(30)
    assert found[:2] == [story, story] and found[2] is not connection


def test_a_claim_makes_hardly_any_sql_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the lock of all claims waits for is what the database does, and not the making of SQL."""
    for number in range(4):
        factories.coder(project, number)
    stories = [factories.story(project) for _ in range(4)]
    pool.start_story(stories[0], actor=ALICE)
    Story.objects.filter(pk__in=[story.pk for story in stories[1:3]]).update(**{"stage": "coding"})
    assigning._claim([stories[1]], Served({}, {}))
    made: list[str] = []
    whole = Query.get_compiler

    def counted(self: Query, *args: object, **kwargs: object) -> object:
        made.append(type(self).__name__)
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(Query, "get_compiler", counted)
    assigning._claim([stories[2]], Served({}, {}))
    assert made == []
    pool.start_story(stories[3], actor=ALICE)
    assert len(made) <= 3, made  # the move's own, and the story as it left it
    monkeypatch.undo()
    assert Session.objects.live().count() == 4
