"""The only door to the event table: what happened in a project, as rows in the transaction that made it true.

The number comes from a counter row of the project, taken last, so that number order is commit order (a database sequence would not give
that: rules.md, Database and push). Readers keep a cursor; on PostgreSQL a NOTIFY carries the nudge, on SQLite `data_version` does.
"""

from __future__ import annotations

from django.db import connection, transaction
from django.db.models import F

from pipeline.models import Event, EventCounter, Story

CHANNEL = "huskies"


def record(project_id: int, kind: str, *, story: Story | None = None, text: str = "") -> int:
    """Write one event; returns its number. Call it at the end of the transaction: it locks the project's counter."""
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("An event stands in the transaction that made it true.")
    if not EventCounter.objects.filter(pk=project_id).update(number=F("number") + 1):
        EventCounter.objects.get_or_create(pk=project_id)
        EventCounter.objects.filter(pk=project_id).update(number=F("number") + 1)
    number = EventCounter.objects.values_list("number", flat=True).get(pk=project_id)
    Event.objects.create(project_id=project_id, number=number, story=story, kind=kind, text=text)
    nudge(f"project:{project_id}")
    return number


def nudge(topic: str) -> None:
    """Wake the readers of a topic when the transaction commits. The nudge carries no news."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, topic])
