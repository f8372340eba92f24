"""The events of a process's log, as tests ask for them and write them."""

from __future__ import annotations

import json
import time
from typing import Any

from pipeline import logevents
from pipeline.logevents import LogEvent, NewEvent
from pipeline.models import LogPart, Process


def events(of: Process | int | None, *kinds: str) -> list[LogEvent]:
    """In their order; of all kinds, or of these."""
    key = of.pk if isinstance(of, Process) else of
    return list(logevents.since(key, kinds=kinds or None)) if key else []


def events_of_all(*kinds: str) -> list[LogEvent]:
    keys = LogPart.objects.order_by("process").values_list("process", flat=True).distinct()
    return [event for key in keys for event in events(key, *kinds)]


def words(of: Process | int | None, *kinds: str) -> str:
    """All bodies as one text."""
    return json.dumps([event.body for event in events(of, *kinds)])


def add_events(process_id: int, seq: int, *texts: str, kind: str = "line") -> None:
    """Events from number `seq` on, as the log's single writer appends them."""
    now = time.time_ns() // 1000
    logevents.append(process_id, seq, [NewEvent(kind, {"text": text}, now) for text in texts])


def body(of: Process | int | None, kind: str) -> dict[str, Any]:
    """Of the only event of its kind."""
    [found] = events(of, kind)
    return found.body
