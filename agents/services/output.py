"""The output of a session from any point, while it runs and after: numbered events, read from the database and never from a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from agents.models import Session
from agents.states import State
from pipeline import logevents
from pipeline.logevents import LogEvent

LOOK_SECONDS = 0.2


def events(session: Session, start: int = 1) -> Iterator[LogEvent]:
    """The events from number `start` on, in batches: a long session never stands whole in memory."""
    if session.process_id is not None:
        yield from logevents.since(session.process_id, start)


def followed(session: Session, start: int = 1) -> Iterator[LogEvent]:
    """As `events`, and what comes, until the session has ended or is deleted."""
    while True:
        # Looked at before the events, so that the last ones are read after it.
        over = not Session.objects.filter(pk=session.pk).exclude(state=State.ENDED).exists()
        for row in events(session, start):
            yield row
            start = row.seq + 1
        if over:
            return
        time.sleep(LOOK_SECONDS)


def line_of(event: dict[str, Any]) -> str:
    """One event (as `shapes.log_event`) as people read it in a terminal."""
    body, kind = event["body"], event["kind"]
    text = str(body.get("text") or "")
    if kind in ("text", "line", "cut"):
        return text
    head = {
        "tool_start": f"> {body.get('title') or body.get('name') or ''}",
        "tool_end": "<" + (" failed" if body.get("error") else ""),
    }
    about = head.get(kind, f"[{kind}]")
    if kind == "note":
        about = f"[{body.get('note')}] {body.get('step') or ''}".rstrip()
    return f"{about} {text}".rstrip() if "\n" not in text else f"{about}\n{text}"
