"""Who goes first: priority plus whole ageing periods waited, then the least recently served person and project, then the number.

The bound that follows: a story of priority p overtakes every story of priority q that comes later than (q - p) ageing periods after it, so
it waits at most (highest priority - p) periods, and then for those that waited as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from agents.models import Session
from pipeline.models import Story

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


def with_last_served(rows: QuerySet[Story]) -> QuerySet[Story]:
    """Each story with `person_id`, `person_served` and `project_served`: ids of the last sessions of both; each is one look into an index."""
    last = Session.objects.order_by("-id").values("id")
    return rows.annotate(
        person_id=Coalesce("asked_by_id", "owner_id"),
        person_served=Subquery(last.filter(started_by=OuterRef("person_id"))[:1]),
        project_served=Subquery(last.filter(project=OuterRef("project_id"))[:1]),
    )


def served_of(rows: Mapping[int, Story]) -> Served:
    persons: dict[int | None, int] = {}
    projects: dict[int, int] = {}
    for row in rows.values():
        persons[row.person_id] = row.person_served or 0  # type: ignore[attr-defined]
        projects[row.project_id] = row.project_served or 0  # type: ignore[attr-defined]
    return Served(persons, projects)
