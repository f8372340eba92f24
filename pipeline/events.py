"""The only door to the event table: what happened in a project, as rows in the transaction that made it true.

The number comes from a counter row of the project, taken last, so that number order is commit order (a database sequence would not give
that: rules.md, Database and push). Readers keep a cursor; on PostgreSQL a NOTIFY carries the nudge, on SQLite `data_version` does.
"""

from __future__ import annotations

from django.db import connection, transaction

from pipeline.models import Event, EventCounter, Story
from pipeline.prepared import insert

CHANNEL = "huskies"
NEXT_NUMBER = (
    f"UPDATE {EventCounter._meta.db_table} SET number = number + 1 WHERE project_id = %s RETURNING number"  # noqa: S608
)


def record(project_id: int, kind: str, *, story: Story | None = None, text: str = "") -> int:
    """Write one event; returns its number. Call it at the end of the transaction: it locks the project's counter."""
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("An event stands in the transaction that made it true.")
    number = _next_number(project_id)
    if number is None:
        EventCounter.objects.get_or_create(pk=project_id)
        number = _next_number(project_id)
    assert number is not None, "the counter was made just now"  # noqa: S101
    insert(Event(project_id=project_id, number=number, story=story, kind=kind, text=text))
    nudge(f"project:{project_id}")
    return number


def _next_number(project_id: int) -> int | None:
    """Count on and say where we are, in one statement (the ORM needs two); None when the project has no counter yet."""
    with connection.cursor() as cursor:
        cursor.execute(NEXT_NUMBER, [project_id])
        row = cursor.fetchone()
    return int(row[0]) if row else None


def nudge(topic: str) -> None:
    """Wake the readers of a topic when the transaction commits. The nudge carries no news."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, topic])
