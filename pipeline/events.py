"""The only door to the event table: what happened in a project, as rows in the transaction that made it true.

The number comes from a counter row of the project, taken last, so that number order is commit order (a database sequence would not give
that: rules.md, Database and push). Readers keep a cursor; on PostgreSQL a NOTIFY carries the nudge, on SQLite `data_version` does.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection, transaction

from pipeline.models import Event, EventCounter, Story
from pipeline.prepared import insert_all

CHANNEL = "huskies"
COUNT_ON = (
    f"UPDATE {EventCounter._meta.db_table} SET number = number + %s WHERE project_id = %s RETURNING number"  # noqa: S608
)


def record(project_id: int, kind: str, *, story: Story | None = None, text: str = "") -> int:
    """Write one event; returns its number. Call it at the end of the transaction: it locks the project's counter."""
    return _record(project_id, [Event(story=story, kind=kind, text=text)])


def record_stories(stories: Iterable[Story]) -> None:
    """An event of kind `story`, without words, for each; by project in one order, so that no two transactions wait for each other's counters."""
    of: dict[int, list[Event]] = {}
    for story in stories:
        of.setdefault(story.project_id, []).append(Event(story=story, kind="story"))
    for project_id in sorted(of):
        _record(project_id, of[project_id])


def _record(project_id: int, fresh: list[Event]) -> int:
    """The number of the last."""
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("An event stands in the transaction that made it true.")
    last = _count_on(project_id, len(fresh))
    if last is None:
        EventCounter.objects.get_or_create(pk=project_id)
        last = _count_on(project_id, len(fresh))
    assert last is not None, "the counter was made just now"  # noqa: S101
    for number, event in enumerate(fresh, last - len(fresh) + 1):
        event.project_id, event.number = project_id, number
    insert_all(fresh)
    nudge(f"project:{project_id}")
    return last


def _count_on(project_id: int, by: int) -> int | None:
    """Count on and say where we are, in one statement (the ORM needs two); None when the project has no counter yet."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT_ON, [by, project_id])
        row = cursor.fetchone()
    return int(row[0]) if row else None


def nudge(topic: str) -> None:
    """Wake the readers of a topic when the transaction commits. The nudge carries no news."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, topic])
