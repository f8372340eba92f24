"""Who goes first: priority plus whole ageing periods waited, then the least recently served person and project, then the number.

The bound that follows: a story of priority p overtakes every story of priority q that comes later than (q - p) ageing periods after it, so
it waits at most (highest priority - p) periods, and then for those that waited as long.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from agents.models import Session
from pipeline.models import Story
from pipeline.prepared import Select

AGEING = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Claimant:
    """A waiting story as the order sees it."""

    story: int
    number: int
    project: int
    person: int | None
    priority: int
    since: datetime


@dataclass(slots=True)
class Served:
    """When each person and project was last given an agent, as a number that only grows (a session's id); absent = never."""

    persons: dict[int | None, int]
    projects: dict[int, int]

    def serve(self, claimant: Claimant) -> None:
        """Now: later than all others."""
        at = 1 + max((*self.persons.values(), *self.projects.values()), default=0)
        self.persons[claimant.person] = at
        self.projects[claimant.project] = at

    def copy(self) -> Served:
        return Served(dict(self.persons), dict(self.projects))


def rank(claimant: Claimant, served: Served, now: datetime) -> tuple[int, int, int, int, int]:
    """The smaller, the sooner."""
    periods = max(0, (now - claimant.since) // AGEING)
    return (
        -(claimant.priority + periods),
        served.persons.get(claimant.person, 0),
        served.projects.get(claimant.project, 0),
        claimant.number,
        claimant.story,
    )


LAST_OF_PERSON: Select[tuple[int]] = Select(
    lambda person: Session.objects.filter(started_by=person).order_by("-id").values_list("id")[:1], int
)
LAST_OF_PROJECT: Select[tuple[int]] = Select(
    lambda project: Session.objects.filter(project=project).order_by("-id").values_list("id")[:1], int
)


def served_of(stories: Collection[Story]) -> Served:
    """Of the persons and projects of these; each is one look into an index."""
    persons = {story.asked_by_id or story.owner_id for story in stories}
    projects = {story.project_id for story in stories}
    return Served(
        {pk: _number(LAST_OF_PERSON.first(pk)) if pk is not None else 0 for pk in persons},
        {pk: _number(LAST_OF_PROJECT.first(pk)) for pk in projects},
    )


def _number(row: tuple[int] | None) -> int:
    return row[0] if row else 0
