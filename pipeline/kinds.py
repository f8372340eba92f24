"""Kinds of process register their handler here; the supervisor and the launcher know no story, no gate, no agent."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from pipeline.logevents import NewEvent
from pipeline.models import Process
from pipeline.processes.logfile import NOTE, STDERR, Record

LINE_BYTES = 16_384


class Handler(ABC):
    """What a kind of process does; by default its lines are events."""

    @abstractmethod
    def spec(self, process: Process) -> dict[str, Any]:
        """The runner's order. Secrets are resolved here and never stored. May raise Refused: the process ends as not launched."""

    def at_once(self, process: Process) -> dict[str, Any] | None:
        """Do it here, without a child, where that takes milliseconds: its result. None = `spec` is asked for."""
        return None

    def records(self, process: Process, records: Sequence[Record]) -> list[NewEvent]:
        """Pure parsing of whole records; may change `process.parser_state` (JSON), which is stored with the offset."""
        events = []
        for record in records:
            event = as_event(record)
            if event:
                events.append(event)
        return events

    def stored(self, process: Process, events: Sequence[NewEvent], first_seq: int) -> None:  # noqa: B027
        """Inside the batch's transaction, after the events got their numbers: write rows that follow from them."""

    def started(self, process: Process) -> None:  # noqa: B027
        """Inside the batch's transaction: the main step has begun."""

    @abstractmethod
    def ended(self, process: Process) -> None:
        """In a transaction of its own: `process.state` is EXITED or LOST. Idempotent; ends with services.processes.finish(process)."""


_handlers: dict[str, Handler] = {}


def register(kind: str, handler: Handler) -> None:
    _handlers[kind] = handler


def handler_of(process: Process) -> Handler:
    return _handlers[process.kind]


def when(record: Record) -> int:
    """In microseconds since 1970."""
    return record.wall_ns // 1000


def text_of(data: bytes) -> str:
    """Any bytes as text that both databases can store: invalid UTF-8 replaced once, NUL shown."""
    return data.decode("utf-8", "replace").replace("\x00", "\u2400")


def as_event(record: Record) -> NewEvent | None:
    """A record as people read it: a line, or a note of the runner."""
    if record.stream == NOTE:
        try:
            body = json.loads(record.data)
        except ValueError:
            body = {"note": "unreadable"}
        return NewEvent("note", body if isinstance(body, dict) else {"note": "unreadable"}, when(record))
    body = {
        "text": text_of(record.data[:LINE_BYTES]),
        "stream": "stderr" if record.stream == STDERR else "stdout",
    }
    if len(record.data) > LINE_BYTES:
        body["cut"] = len(record.data) - LINE_BYTES
    return NewEvent("line", body, when(record))


def result(process: Process) -> dict[str, Any]:
    """What came of a chore: {"result": {...}}, {"refused": {"kind", "message", ...}}, or {"failed": sentence} when it did not get that far."""
    ended = process.exit or {}
    if isinstance(said := ended.get("answer"), dict):
        return said
    how = ended.get("outcome", "lost")
    return {
        "failed": f"The {process.kind} process {process.key} did not finish ({how}, exit {ended.get('code')})."
    }
