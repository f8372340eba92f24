"""From a runner's log records to whole lines, for every runtime's parser.

A long line comes as several records. They are put together, also across calls and across a restart
of the server (the state is JSON), up to 1 MiB; what is longer is kept as an `output` event with its
head. Only the main step's stdout is the program's own language: stderr, and whatever the steps
before it print, become `output` events as they are.
"""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from .base import Event, Outcome, Record, Redact
from .bounds import bounded, clipped, copied, mapping, number, text
from .endings import without_result

STDOUT, STDERR, NOTE = 1, 2, 3
CONTINUED, UNFINISHED, GAP = 1, 2, 4  # flags of a record

MOST_LINE = 1024 * 1024  # bytes of one line that are put together
HEAD = 16 * 1024  # bytes kept of a line that is longer
ERROR_TAIL = 2000  # characters of stderr kept for the reason of a failure
MAIN_STEP = "agent"  # the name of the step that runs the program
STREAM_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class LineParser(ABC):
    """Puts lines together and keeps what every program's parser needs; subclasses read `_line`."""

    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        known = copied(state)
        self._redact = redact
        self._pending = {
            int(key): base64.b64decode(value) for key, value in mapping(known.get("pending")).items()
        }
        # stream -> bytes of the present line that were left out
        self._over = {int(key): number(value) for key, value in mapping(known.get("over")).items()}
        self._main = bool(known.get("main", True))
        self._step = text(known.get("step"))
        self._stderr = text(known.get("stderr"))
        self._started = bool(known.get("started", False))
        # How the main step ended by the runner's note; steps after it may end otherwise.
        self._main_end: dict[str, Any] = mapping(known.get("main_end"))

    def state(self) -> dict[str, Any]:
        return {
            "pending": {str(key): base64.b64encode(value).decode() for key, value in self._pending.items()},
            "over": {str(key): value for key, value in self._over.items()},
            "main": self._main,
            "step": self._step,
            "stderr": self._stderr,
            "started": self._started,
            "main_end": dict(self._main_end),
        }

    def feed(self, record: Record) -> list[Event]:
        """The events of one record; never raises, whatever the program printed."""
        if record.stream == NOTE:
            return self._note(record.data)
        if record.stream not in STREAM_NAMES:
            return []
        events = self._cut_here(record.stream) if record.flags & GAP else []
        self._add(record.stream, record.data)
        if record.flags & CONTINUED and not record.flags & UNFINISHED:
            return events
        line, over = self._pending.pop(record.stream, b""), self._over.pop(record.stream, 0)
        return events + self._whole(record.stream, line, over)

    def _add(self, stream: int, data: bytes) -> None:
        kept = self._pending.get(stream, b"")
        if self._over.get(stream) or len(kept) + len(data) > MOST_LINE:
            both = kept[:HEAD] + data[: max(0, HEAD - len(kept))]
            self._over[stream] = self._over.get(stream, 0) + len(kept) + len(data) - len(both)
            self._pending[stream] = both
        else:
            self._pending[stream] = kept + data

    def _cut_here(self, stream: int) -> list[Event]:
        """Bytes were dropped before this record: what waits is not the beginning of its line."""
        note = Event("note", {"note": "dropped", "stream": STREAM_NAMES[stream]})
        if stream not in self._pending:
            return [note]
        line, over = self._pending.pop(stream), self._over.pop(stream, 0)
        return [self._output(stream, line, over), note]

    def _whole(self, stream: int, line: bytes, over: int) -> list[Event]:
        if self._redact is not None:
            line = self._redact(line)
        if over or stream != STDOUT or not self._main:
            if stream == STDERR and self._main:
                said = self._stderr + line[:HEAD].decode("utf-8", "replace") + "\n"
                self._stderr = said[-ERROR_TAIL:]
            return [self._output(stream, line, over)]
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            return [self._output(stream, line, 0)] if line.strip() else []
        return self._message(value)

    def _output(self, stream: int, line: bytes, over: int) -> Event:
        body = clipped(line.decode("utf-8", "replace"))
        if over:
            body["cut"] = body.get("cut", 0) + over
        body["stream"] = STREAM_NAMES[stream]
        if not self._main and self._step:
            body["step"] = self._step
        return Event("output", body)

    def _note(self, data: bytes) -> list[Event]:
        try:
            note = bounded(mapping(json.loads(data)))
        except (ValueError, RecursionError):
            return []
        if note.get("note") == "step-start":
            self._step = text(note.get("step"))
            self._main = self._step in ("", MAIN_STEP)
        elif note.get("note") == "step-end" and self._main:
            self._main_end = {key: note.get(key) for key in ("outcome", "code", "signal", "reason")}
        return [Event("note", note)] if note else []

    @abstractmethod
    def _message(self, message: dict[str, Any]) -> list[Event]:
        """One line of the program's own language."""

    @abstractmethod
    def _judged(self) -> Outcome | Literal["success"] | None:
        """What the program itself said of its end: a failure, `"success"`, or None (nothing)."""

    def outcome(self, exit: Mapping[str, Any] | None) -> Outcome:
        """How the session ended; `exit` is the runner's exit record, None if the runner was lost."""
        judged = self._judged()
        if exit is not None and self._main_end.get("outcome"):
            exit = {**exit, **self._main_end}
        if exit is None and judged == "success":
            return Outcome("done", "The agent finished its turn, and its runner was killed after that.")
        known = without_result(
            exit, started=self._started, stderr=self._stderr, said_success=judged == "success"
        )
        if known.kind in ("stopped", "lost", "hung", "wall_limit", "output_limit"):
            return known  # the runner ended it: what the program said before does not count
        return judged if isinstance(judged, Outcome) else known
