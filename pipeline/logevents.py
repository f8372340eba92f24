"""Appends to the numbered events of a process's log, thousands a second."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.inserting import as_json, insert, moments
from pipeline.kinds import NewEvent
from pipeline.models import LogEvent

COLUMNS = ("process", "seq", "kind", "body", "at")


def append(process_id: int, first_seq: int, new: Sequence[NewEvent]) -> None:
    """Number them from `first_seq` on, inside the caller's transaction. Raises IntegrityError when a number is taken."""
    times = moments(one.at for one in new)
    rows = [
        (process_id, seq, one.kind, one.json or as_json(one.body), at)
        for seq, (one, at) in enumerate(zip(new, times, strict=True), first_seq)
    ]
    insert(LogEvent, COLUMNS, rows)
