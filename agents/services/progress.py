"""What the watchdog knows of a running session, taken from its events as they are stored; pure, JSON, and small.

It lies beside the parser's state in the process's row and moves with the log's offset, so that a killed server neither forgets nor doubles it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.logevents import NewEvent

MOST_READ = 1000
"""Paths remembered of one session; what it reads beyond them is no progress."""
MOST_OPEN = 64
MOST_REQUESTS = 64
GOES_ON = {"usage", "text", "thinking", "tool_start", "tool_end"}
SOFT = "allowed_warning"


@dataclass(slots=True)
class Watch:
    """`read`: short hashes of the paths that were read; `progressed`: when a file was last changed, or read for the first time.

    Times are epoch seconds by the runner's clock, `heard` monotonic nanoseconds of the boot. `blocked`: since when the provider refuses,
    `until`: when it will take requests again (0 = it did not say). `waits_until`: a pause that the program announced itself.
    `asked`: the permission requests that wait, `asked_since` when the first of them was made, `waited`: seconds in which some waited.
    """

    began: bool = False
    heard: int = 0
    turns: int = 0
    tool_turns: int = 0
    used_tool: bool = False
    requests: dict[str, None] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)
    changed: int = 0
    progressed: float = 0
    open: list[str] = field(default_factory=list)
    throttled: bool = False
    blocked: float = 0
    until: int = 0
    waits_until: float = 0
    asked: list[str] = field(default_factory=list)
    asked_since: float = 0
    waited: float = 0

    def __post_init__(self) -> None:
        self.requests = dict.fromkeys(
            self.requests
        )  # stored as a list: jsonb does not keep the order of keys

    @classmethod
    def of(cls, parser_state: Mapping[str, Any]) -> Watch:
        known = parser_state.get("watch") or {}
        fields = cls.__dataclass_fields__
        return cls(**{name: _copied(value) for name, value in known.items() if name in fields})

    def to_json(self) -> dict[str, Any]:
        return {name: _copied(getattr(self, name)) for name in self.__dataclass_fields__}

    def take(self, events: Iterable[NewEvent], *, copy: str, heard: int) -> None:
        """`copy`: the path of the working copy, which differs from session to session; `heard`: when the newest record was written."""
        self.heard = max(self.heard, heard)
        for kind, body, microseconds in events:
            if kind in GOES_ON and (self.blocked or self.until or self.waits_until):
                self.blocked, self.until, self.waits_until = 0, 0, 0
            if kind == "usage":
                self._request(str(body.get("request_id", "")), bool(body.get("within")))
            elif kind == "tool_start":
                self._tool(body, microseconds / 1e6, copy)
            elif kind == "tool_end":
                if body.get("id") in self.open:
                    self.open = [one for one in self.open if one != body["id"]]
                if body.get("files"):
                    self.changed, self.progressed = self.changed + 1, microseconds / 1e6
            elif kind == "started":
                self.began = True
            elif kind == "rate_limit":
                self._limit(body, microseconds / 1e6)
            elif kind == "retry":
                self.waits_until = microseconds / 1e6 + float(body.get("delay_ms") or 0) / 1000
            elif kind in ("permission", "permission_over", "answered"):
                self._asks(kind, body, microseconds / 1e6)

    def _request(self, request: str, within: bool) -> None:
        """One request of the conversation itself is one turn, however often its counts grow."""
        if within or not request or request in self.requests or request.startswith("unseen-"):
            return
        self.requests[request] = None
        if len(self.requests) > MOST_REQUESTS:
            del self.requests[next(iter(self.requests))]
        self.turns += 1
        self.used_tool = False
        self.open = []  # a model is asked again only when it has the results of its tools, said or not

    def _tool(self, body: Mapping[str, Any], at: float, copy: str) -> None:
        if not body.get("within") and not self.used_tool:
            self.used_tool = True
            self.tool_turns += 1
        if body.get("id"):
            self.open.append(str(body["id"]))
            del self.open[:-MOST_OPEN]
        path = body.get("reads")
        if path and len(self.read) < MOST_READ:
            mark = hashlib.blake2s(str(path).removeprefix(f"{copy}/").encode(), digest_size=4).hexdigest()
            if mark not in self.read:
                self.read.append(mark)
                self.progressed = at

    def _asks(self, kind: str, body: Mapping[str, Any], at: float) -> None:
        """While it waits for people it is not silent, and its time does not run."""
        if kind == "permission":
            if "decision" not in body and len(self.asked) < MOST_OPEN:
                self.asked_since = self.asked_since if self.asked else at
                self.asked = [*self.asked, str(body.get("id"))]
            return
        before, self.asked = self.asked, [one for one in self.asked if one != body.get("id")]
        if before and not self.asked:
            self.waited += max(0.0, at - self.asked_since)

    def waits(self, now: float) -> float:
        """Seconds in all that it waited for people, until now (epoch seconds)."""
        return self.waited + (max(0.0, now - self.asked_since) if self.asked else 0.0)

    def _limit(self, body: Mapping[str, Any], at: float) -> None:
        status = str(body.get("status") or "")
        self.throttled = status == SOFT
        if status in ("", "allowed", SOFT) or body.get("overage"):
            self.blocked, self.until = 0, 0
        else:
            self.blocked, self.until = at, int(body.get("resets_at") or 0)

    def silent_for(self, now_ns: int, now: datetime) -> float:
        """Seconds in which it said nothing although nothing is known to be under way: no tool, and no pause that was announced."""
        if self.open or self.asked or max(self.until, self.waits_until) > now.timestamp():
            return 0.0
        return max(0.0, (now_ns - self.heard) / 1e9) if self.heard else 0.0


def _copied(value: Any) -> Any:
    return list(value) if isinstance(value, list | dict) else value


def new_reads(watch: Watch, earlier: Iterable[Watch]) -> bool:
    """Whether it read a file that no earlier session of the conversation had read."""
    if not watch.read:
        return False
    known = {mark for one in earlier for mark in one.read}
    return any(mark not in known for mark in watch.read)
