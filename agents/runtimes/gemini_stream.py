"""Reads Gemini CLI's stream of JSON lines (measured with 0.61.0), and those that `followed` adds.

Tolerant on purpose: what is not known becomes a `note`, what is not JSON becomes `output`, nothing raises.
Its tries at a provider that refuses are told on stderr alone, its end by a result or, without one, an exit code.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any, Literal

from .base import Event, Outcome, OutcomeKind, Redact
from .bounds import bounded, clean, clip, clipped, copied, line_of, mapping, number, readable, text
from .endings import signal_of
from .ledger import Counts, Ledger
from .lines import STDERR, LineParser
from .refusals import conversation_missing, kind_of_status, refused

MOST_OPEN = 64  # tool calls that are followed at a time
LONG_LINE = 4096  # characters of an unfinished line after which its words are passed on
FILE_TOOLS = {"write_file", "replace"}
# Its own exit codes; an error of the provider's ends it with the status modulo 256.
BY_CODE: dict[int, OutcomeKind] = {41: "auth", 42: "config", 52: "config", 53: "turn_limit", 55: "config"}
WORDS: tuple[tuple[str, OutcomeKind], ...] = (
    ("api key not valid", "auth"),
    ("api_key_invalid", "auth"),
    ("exceeds the maximum number of tokens", "context_full"),
    ("is not found", "bad_model"),
    ("quota", "rate_limited"),
    ("maximum number of turns", "turn_limit"),
    ("max session turns", "turn_limit"),
    ("fetch failed", "overloaded"),
    ("terminated", "overloaded"),
    ("econnrefused", "overloaded"),
    ("incomplete json segment", "overloaded"),
    ("premature close", "overloaded"),
)
_ATTEMPT = re.compile(r"Attempt (\d{1,4}) failed(?: with status (\d{3}))?")
_DELAY = re.compile(r"[Rr]etrying (?:after|in) (\d{1,9})(?:\.\d+)?ms")
_AGAIN = re.compile(r"retry after (\d{1,7})(?:\.\d+)?s\b")
_CODE = re.compile(r'"?code"?\s*:\s*(\d{3})\b|\bstatus:? (\d{3})\b')


class GeminiParser(LineParser):
    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        super().__init__(state, redact)
        known = copied(state)
        self._ledger = Ledger(mapping(known.get("ledger")))
        self._model = text(known.get("model"))
        self._tools: dict[str, Any] = mapping(known.get("tools"))  # id -> [name, path], of the open calls
        self._waiting = text(known.get("waiting"))  # words of an unfinished line
        self._said = text(known.get("said"))  # the last complaint
        self._end = text(known.get("end"))  # "success" or "error"

    def state(self) -> dict[str, Any]:
        own = {
            "ledger": self._ledger.state(),
            "model": self._model,
            "tools": self._tools,
            "waiting": self._waiting,
            "said": self._said,
            "end": self._end,
        }
        return super().state() | copied(own)

    def _note(self, data: bytes) -> list[Event]:
        events = super()._note(data)
        ends = self._main and any(event.body.get("note") == "step-end" for event in events)
        return [*self._rest(), *events] if ends else events  # the last words of an answer that broke off

    def _whole(self, stream: int, line: bytes, over: int) -> list[Event]:
        events = super()._whole(stream, line, over)
        said = line[:4096].decode("utf-8", "replace") if stream == STDERR and self._main else ""
        if found := _ATTEMPT.search(said):
            delay = _DELAY.search(said)
            body = {
                "attempt": int(found[1]),
                "most": 0,
                "delay_ms": int(delay[1]) if delay else 0,
                "status": int(found[2]) if found[2] else None,
                "error": line_of(self._masked(said)),
            }
            if not self._end:
                self._said = clip(self._masked(said), 2000)[0]
            events.append(Event("retry", body))
        return events

    def _message(self, message: dict[str, Any]) -> list[Event]:
        kind = text(message.get("type"))
        if kind == "message":
            return self._words(message)
        if kind.startswith("huskies."):
            return self._added(kind, message)
        return [*self._rest(), *self._other(kind, message)]

    def _other(self, kind: str, message: dict[str, Any]) -> list[Event]:
        if kind == "init":
            return self._begin(message)
        if kind == "tool_use":
            return [self._tool_start(message)]
        if kind == "tool_result":
            return [self._tool_end(message)]
        if kind == "error":
            said = clipped(text(message.get("message")), 4000)
            self._said = clip(said["text"], 2000)[0]
            return [Event("note", {"note": clip(text(message.get("severity")) or "error", 50)[0], **said})]
        if kind == "result":
            return self._ended(message)
        body: dict[str, Any] = {"note": clip(kind or "untyped", 100)[0], "title": line_of(kind or "untyped")}
        return [Event("note", body | clipped(readable(bounded(message)), 4000))]

    def _begin(self, message: dict[str, Any]) -> list[Event]:
        self._model = clip(text(message.get("model")), 100)[0] or self._model
        if self._started:
            return []
        self._started = True
        conversation = clip(text(message.get("session_id")), 100)[0]
        return [Event("started", {"conversation": conversation, "model": self._model})]

    def _added(self, kind: str, message: dict[str, Any]) -> list[Event]:
        request = text(message.get("request"))
        if kind != "huskies.usage" or not request or self._ledger.has_seen(request):
            return []
        model = text(message.get("model")) or self._model
        return self._ledger.start("", request, model, _counts(mapping(message.get("usage"))))

    # ---------------------------------------------------------------- what it says and does

    def _words(self, message: dict[str, Any]) -> list[Event]:
        if message.get("role") != "assistant":
            return []  # the prompt
        self._waiting += clean(text(message.get("content")))
        end = self._waiting.rfind("\n") + 1
        if message.get("delta") is not True or (not end and len(self._waiting) > LONG_LINE):
            end = len(self._waiting)
        said, self._waiting = self._waiting[:end], self._waiting[end:]
        return self._texts(said, more=bool(self._waiting) or message.get("delta") is True)

    def _rest(self) -> list[Event]:
        said, self._waiting = self._waiting, ""
        return self._texts(said, more=False)

    def _texts(self, said: str, *, more: bool) -> list[Event]:
        said = self._masked(said)  # a secret may have been split over two pieces
        return [Event("text", clipped(said) | ({"more": True} if more else {}))] if said else []

    def _masked(self, said: str) -> str:
        if self._redact is None:
            return said
        return self._redact(said.encode("utf-8", "replace")).decode("utf-8", "replace")

    def _tool_start(self, message: dict[str, Any]) -> Event:
        name, call = (clip(text(message.get(key)), 100)[0] for key in ("tool_name", "tool_id"))
        given = mapping(message.get("parameters"))
        path = text(given.get("file_path"))
        if len(self._tools) >= MOST_OPEN:
            self._tools.pop(next(iter(self._tools)))
        self._tools[call] = [name, clip(path, 500)[0]]
        title, details = _summary(name, given, path)
        body: dict[str, Any] = {"id": call, "name": name, "title": title, **clipped(details)}
        if name == "read_file" and path:
            body["reads"] = clip(path, 500)[0]
        return Event("tool_start", body)

    def _tool_end(self, message: dict[str, Any]) -> Event:
        call = clip(text(message.get("tool_id")), 100)[0]
        known = self._tools.pop(call, None)
        name, path = known if isinstance(known, list) and len(known) == 2 else ("", "")
        failed = message.get("status") != "success"
        said = text(message.get("output")) or text(mapping(message.get("error")).get("message"))
        body: dict[str, Any] = {"id": call, "name": text(name), "error": failed, **clipped(said)}
        if name in FILE_TOOLS and path and not failed:
            body["files"] = [text(path)]
        return Event("tool_end", body)

    # ---------------------------------------------------------------- the end

    def _ended(self, message: dict[str, Any]) -> list[Event]:
        failed = message.get("status") != "success"
        self._end = "error" if failed else "success"
        said = text(mapping(message.get("error")).get("message"))
        if failed and said:
            self._said = clip(said, 2000)[0]
        stats = mapping(message.get("stats"))
        totals = {str(model): _total(mapping(one)) for model, one in mapping(stats.get("models")).items()}
        body = {"error": failed, "duration_ms": number(stats.get("duration_ms")), **clipped(said, 4000)}
        return [*self._ledger.settle(totals, "run"), Event("ended", body)]

    def _judged(self) -> Outcome | Literal["success"] | None:
        if self._end == "success":
            return "success"
        return _judge(self._said, 0, self._stderr) if self._end == "error" else None

    def outcome(self, exit: Mapping[str, Any] | None) -> Outcome:
        """Its exit code tells what its result does not, or what ended it before one."""
        known = super().outcome(exit)
        end = {**(exit or {}), **(self._main_end if self._main_end.get("outcome") else {})}
        code = end.get("code")
        if (
            known.kind not in ("crashed", "config")
            or known.detail == "step"
            or end.get("outcome") != "exited"
        ):
            return known
        if not isinstance(code, int) or code in (0, 1) or signal_of(end) is not None:
            return known
        told = self._stderr.lower()
        if "no previous sessions found" in told or "invalid session identifier" in told:
            return conversation_missing()
        judged = _judge(self._said or self._stderr, code, self._stderr)
        return judged if judged.kind != "crashed" else known


def _judge(said: str, code: int, aside: str) -> Outcome:
    """By the words of what it said, then by the provider's status there or in what stands on stderr, then by its exit code."""
    kind = _kind(said, code, aside)
    again = _AGAIN.search(said) if kind == "rate_limited" else None
    until = int(time.time()) + int(again[1]) if again else None
    return refused(kind, said, until)


def _kind(said: str, code: int, aside: str) -> OutcomeKind:
    low = said.lower()
    for word, kind in WORDS:
        if word in low:
            return kind
    found = _CODE.search(said) or _CODE.search(aside)
    status = int(found[1] or found[2]) if found else 0
    if not status and code not in BY_CODE:
        # 400 … 511 modulo 256 and nothing that a signal or it itself ends with
        status = code + 256 if 144 <= code <= 255 else 0
    return kind_of_status(status) or BY_CODE.get(code, "crashed")


def _counts(tokens: Mapping[str, Any]) -> Counts:
    """The counts of one request; thoughts are charged as output."""
    cached, thoughts = number(tokens.get("cached")), number(tokens.get("thoughts"))
    return _as_ours(number(tokens.get("input")), number(tokens.get("output")) + thoughts, cached, thoughts)


def _total(stats: Mapping[str, Any]) -> Counts:
    """The counts of a run by one model: thoughts are what its total has beyond the rest."""
    given, output = number(stats.get("input_tokens")), number(stats.get("output_tokens"))
    thoughts = max(0, number(stats.get("total_tokens")) - given - output)
    return _as_ours(given, output + thoughts, number(stats.get("cached")), thoughts)


def _as_ours(given: int, output: int, cached: int, thoughts: int) -> Counts:
    counts = dict.fromkeys(("cache_write", "cache_write_1h"), 0)
    return counts | {
        "input": max(0, given - cached),
        "output": output,
        "cache_read": cached,
        "thinking": thoughts,
    }


def _summary(name: str, given: dict[str, Any], path: str) -> tuple[str, str]:
    """A title of one line and the details of a call."""
    if name == "run_shell_command":
        command = text(given.get("command"))
        return line_of(f"$ {command}"), command
    if name == "write_file":
        return line_of(f"Write {path}"), text(given.get("content"))
    if name == "replace":
        return line_of(f"Edit {path}"), json.dumps(bounded(given, 4000), indent=1, ensure_ascii=False)
    if name == "read_file":
        return line_of(f"Read {path}"), ""
    return line_of(name or "tool"), readable(bounded(given))
