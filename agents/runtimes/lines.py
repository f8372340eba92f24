"""From a runner's log records to whole lines, for every runtime's parser.

A long line comes as several records. They are put together, also across calls and across a restart
of the server (the state is JSON), up to 1 MiB; what is longer is kept as an `output` event with its
head. Only the main step's stdout is the program's own language: stderr, and whatever the steps
before it print, become `output` events as they are.

A secret may be split over two records, so a line is masked when it is whole. What waits in the state is not
masked: who stores it encrypts it.
"""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import orjson

from .base import Event, Outcome, Record, Redact
from .bounds import bounded, clean, clipped, copied, mapping, number, text
from .endings import without_result

STDOUT, STDERR, NOTE = 1, 2, 3
CONTINUED, UNFINISHED, GAP = 1, 2, 4  # flags of a record

MOST_LINE = 1024 * 1024  # bytes of one line that are put together
HEAD = 16 * 1024  # bytes kept of a line that is longer
BEYOND = 8 * 1024  # bytes more of it that are looked at, for what begins before the cut is masked whole
ERROR_TAIL = 2000  # characters of stderr kept for the reason of a failure
MAIN_STEP = "agent"  # the name of the step that runs the program
STREAM_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class LineParser(ABC):
    """Puts lines together and keeps what every program's parser needs; subclasses read `_line`."""

    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        known = copied(state)
        self._redact = redact
        self._unsuspected = False  # nothing within the present record has to be masked
        self._pending = {
            int(key): base64.b64decode(value) for key, value in mapping(known.get("pending")).items()
        }
        # stream -> bytes of the present line that were left out
        self._over = {int(key): number(value) for key, value in mapping(known.get("over")).items()}
        # streams of whose present line the beginning was lost
        self._torn = {one for one in known.get("torn") or () if one in STREAM_NAMES}
        self._main = bool(known.get("main", True))
        self._step = text(known.get("step"))
        self._stderr = text(known.get("stderr"))
        self._started = bool(known.get("started", False))
        # How the main step ended by the runner's note; steps after it may end otherwise.
        self._main_end: dict[str, Any] = mapping(known.get("main_end"))

    def state(self) -> dict[str, Any]:
        return {
            "pending": {str(key): base64.b64encode(value).decode() for key, value in self._pending.items()},
            "torn": sorted(self._torn),
            "over": {str(key): value for key, value in self._over.items()},
            "main": self._main,
            "step": self._step,
            "stderr": self._stderr,
            "started": self._started,
            "main_end": dict(self._main_end),
        }

    def waiting(self) -> int:
        """Bytes of lines that are not whole yet."""
        return sum(map(len, self._pending.values())) if self._pending else 0

    def state_without_lines(self) -> dict[str, Any]:
        """The state, but for the lines that are not whole yet; `take_up` reads those again."""
        pending, self._pending = self._pending, {}
        try:
            return self.state()
        finally:
            self._pending = pending

    def take_up(self, records: Iterable[Record]) -> None:
        """The records from where the first unfinished line begins: only what is still unfinished at their end is kept of them."""
        self._pending, self._over = {}, {}
        for record in records:
            stream, flags = record.stream, record.flags
            if stream not in STREAM_NAMES:
                continue
            if flags & GAP:
                self._pending.pop(stream, None)
                self._over.pop(stream, None)
            if flags & CONTINUED and not flags & UNFINISHED:
                self._add(stream, record.data)
            else:
                self._pending.pop(stream, None)
                self._over.pop(stream, None)

    def feed(self, record: Record, masked: bool = False) -> list[Event]:
        """The events of one record; never raises, whatever the program printed. `masked`: nothing within it has to be masked."""
        stream, flags, self._unsuspected = record.stream, record.flags, masked
        whole = not flags and stream not in self._pending and not self._torn and len(record.data) <= MOST_LINE
        if whole and stream in STREAM_NAMES:
            return self._whole(stream, record.data if masked else self._redacted(record.data), 0)
        if stream == NOTE:
            return self._note(record.data)
        if stream not in STREAM_NAMES:
            return []
        events = self._cut_here(stream) if flags & GAP else []
        self._add(stream, record.data)
        if flags & CONTINUED and not flags & UNFINISHED:
            return events
        return events + self._whole(stream, *self._taken(stream, cut=bool(flags & UNFINISHED)))

    def _redacted(self, line: bytes, *, cut: bool = False) -> bytes:
        if self._redact is None:
            return line
        return self._redact(line, True) if cut else self._redact(line)

    def _add(self, stream: int, data: bytes) -> None:
        kept = self._pending.get(stream, b"")
        if self._over.get(stream) or len(kept) + len(data) > MOST_LINE:
            most = HEAD + BEYOND
            both = kept[:most] + data[: max(0, most - len(kept))]
            self._over[stream] = self._over.get(stream, 0) + len(kept) + len(data) - len(both)
            self._pending[stream] = both
        else:
            self._pending[stream] = kept + data

    def _taken(self, stream: int, *, cut: bool) -> tuple[bytes, int]:
        """(the line so far, masked; bytes of it that are left out)."""
        line, over = self._pending.pop(stream, b""), self._over.pop(stream, 0)
        cut = cut or bool(over) or stream in self._torn
        self._torn.discard(stream)
        line = self._redacted(line, cut=cut)
        if not over:
            return line, 0
        # Of what stands near the end of what is kept nobody knows how it went on.
        shown = line[: min(HEAD, max(0, len(line) - BEYOND // 2))]
        return shown, over + len(line) - len(shown)

    def _cut_here(self, stream: int) -> list[Event]:
        """Bytes were dropped before this record: what waits is not the beginning of its line."""
        note = Event("note", {"note": "dropped", "stream": STREAM_NAMES[stream]})
        events = [self._output(stream, *self._taken(stream, cut=True))] if stream in self._pending else []
        self._torn.add(stream)
        return [*events, note]

    def _whole(self, stream: int, line: bytes, over: int) -> list[Event]:
        """A line, masked; `over`: how many bytes of it are left out."""
        if over or stream != STDOUT or not self._main:
            if stream == STDERR and self._main:
                said = self._stderr + clean(line[:HEAD].decode("utf-8", "replace")) + "\n"
                self._stderr = said[-ERROR_TAIL:]
            return [self._output(stream, line, over)]
        value = parsed(line)
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


def parsed(line: bytes) -> Any:
    """The JSON object that a line is; None for a line of anything else, which costs next to nothing to see."""
    if line[:1] != b"{" and line.lstrip()[:1] != b"{":
        return None
    try:
        return orjson.loads(line)
    except ValueError:
        pass  # stricter than programs are: NaN, half a surrogate pair
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
