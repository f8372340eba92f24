"""Reads the JSON lines of `opencode run` (measured with 1.18.33), and those that `followed` adds.

There is no line that says how the run ended: a step that wants no more tools is its end, an error its failure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from .base import Event, Outcome, OutcomeKind, Redact
from .bounds import bounded, clip, clipped, copied, line_of, mapping, number, readable, text
from .ledger import Counts, Ledger
from .lines import LineParser
from .refusals import conversation_missing, kind_of_status, refused

# In this order: the first that is found decides. A refusal's status decides before them.
WORDS: tuple[tuple[str, OutcomeKind], ...] = (
    ("insufficient_quota", "billing"),
    ("quota exceeded", "billing"),
    ("exceeded your current quota", "billing"),
    ("providerautherror", "auth"),
    ("contextoverflow", "context_full"),
    ("context_length_exceeded", "context_full"),
    ("context length", "context_full"),
    ("rate limit", "rate_limited"),
    ("rate_limit", "rate_limited"),
    ("error 429", "rate_limited"),
    ("too many requests", "rate_limited"),
    ("providermodelnotfound", "bad_model"),
)
FILE_TOOLS = {"write": "Write", "edit": "Edit"}


class OpencodeParser(LineParser):
    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        super().__init__(state, redact)
        known = copied(state)
        self._ledger = Ledger(mapping(known.get("ledger")))
        self._model = text(known.get("model"))
        self._error: dict[str, Any] = mapping(known.get("error"))  # of the provider's, as it told it last
        self._said = text(known.get("said"))
        self._end = text(known.get("end"))  # "stop" or "failed"

    def state(self) -> dict[str, Any]:
        own = {
            "ledger": self._ledger.state(),
            "model": self._model,
            "error": self._error,
            "said": self._said,
            "end": self._end,
        }
        return super().state() | copied(own)

    def _message(self, message: dict[str, Any]) -> list[Event]:
        kind, part = text(message.get("type")), mapping(message.get("part"))
        place = clip(text(part.get("messageID")), 100)[0]
        if kind.startswith("huskies."):
            return self._added(kind, message)
        if kind == "step_start":
            return self._begin(message)
        if kind in ("text", "reasoning"):
            name: Literal["text", "thinking"] = "text" if kind == "text" else "thinking"
            said = text(part.get("text"))
            return [Event(name, {"message": place, **clipped(said)})] if said else []
        if kind == "tool_use":
            return self._tool(part)
        if kind == "step_finish":
            return self._step_over(part)
        if kind == "error":
            return self._failed(mapping(message.get("error")))
        return [_unknown(kind or "untyped", message)]

    def _begin(self, message: dict[str, Any]) -> list[Event]:
        self._end = ""
        if self._started:
            return []
        self._started = True
        conversation = clip(text(message.get("sessionID")), 100)[0]
        return [Event("started", {"conversation": conversation, "model": self._model})]

    def _added(self, kind: str, message: dict[str, Any]) -> list[Event]:
        if kind == "huskies.begin":
            self._model = clip(text(message.get("model")), 100)[0]
            return []
        if kind == "huskies.retry":
            said = text(message.get("error"))
            self._said = clip(said, 2000)[0]
            body = {"attempt": 0, "most": 0, "delay_ms": 0, "status": None, "error": line_of(said)}
            return [Event("retry", body)]
        if kind == "huskies.gave_up":
            self._end = "gave_up"
            said = f"It waited for the provider for {number(message.get('seconds'))} seconds. {self._said}"
            return [Event("ended", {"error": True, **clipped(said, 4000)})]
        return [_unknown(kind, message)]

    def _tool(self, part: dict[str, Any]) -> list[Event]:
        """It is told when it is over."""
        call, name = clip(text(part.get("callID")), 100)[0], clip(text(part.get("tool")), 100)[0]
        state = mapping(part.get("state"))
        given, details = mapping(state.get("input")), mapping(state.get("metadata"))
        path = text(given.get("filePath"))
        title, shown = line_of(f"{name} {text(state.get('title'))}"), readable(bounded(given, 4000))
        if name == "bash":
            title, shown = line_of(f"$ {text(given.get('command'))}"), text(given.get("command"))
        elif name in FILE_TOOLS:
            title, shown = line_of(f"{FILE_TOOLS[name]} {path}"), text(given.get("content")) or shown
        begun: dict[str, Any] = {"id": call, "name": name, "title": title, **clipped(shown)}
        if name == "read" and path:
            begun["reads"] = clip(path, 500)[0]
        code = details.get("exit")
        failed = state.get("status") != "completed" or code not in (None, 0)
        ended: dict[str, Any] = {"id": call, "name": name, "error": failed}
        if isinstance(code, int) and not isinstance(code, bool):
            ended["code"] = bounded(code)
        if name in FILE_TOOLS and path and not failed:
            ended["files"] = [clip(path, 500)[0]]
        said = text(state.get("output")) or text(state.get("error"))
        return [Event("tool_start", begun), Event("tool_end", ended | clipped(said))]

    def _step_over(self, part: dict[str, Any]) -> list[Event]:
        request, tokens = text(part.get("id")), mapping(part.get("tokens"))
        events: list[Event] = []
        if request and not self._ledger.has_seen(request):
            events = self._ledger.start("", request, self._model, _counts(tokens))
        if part.get("reason") == "tool-calls":
            return events
        self._end = "stop"
        return [*events, Event("ended", {"error": False, "text": ""})]

    def _failed(self, error: dict[str, Any]) -> list[Event]:
        data = mapping(error.get("data"))
        self._end, self._said = "failed", clip(text(data.get("message")) or text(error.get("name")), 2000)[0]
        again = text(mapping(data.get("responseHeaders")).get("retry-after"))
        self._error = {
            "name": clip(text(error.get("name")), 100)[0],
            "status": number(data.get("statusCode")),
            "body": clip(text(data.get("responseBody")), 500)[0],
            "until": int(time.time()) + int(again) if again.isdecimal() and len(again) < 8 else None,
        }
        return [Event("ended", {"error": True, **clipped(self._said, 4000)})]

    def _judged(self) -> Outcome | Literal["success"] | None:
        if self._end == "stop":
            return "success"
        if self._end == "gave_up":  # it tries again where it may help alone
            return refused(_by_words(self._said) or "overloaded", self._said)
        if self._end == "failed":
            told = " ".join(text(self._error.get(key)) for key in ("name", "body"))
            by_words = _by_words(f"{told} {self._said}")
            by_status = kind_of_status(number(self._error.get("status")))
            kind = by_words if by_words in ("billing", "context_full") else by_status or by_words
            return refused(kind or "crashed", self._said, number(self._error.get("until")) or None)
        if "The conversation to go on with is not there" in self._stderr:
            return conversation_missing()
        if "The repository brings plugins of opencode along" in self._stderr:
            remedy = "Remove them, or give the agent another runtime."
            return Outcome("config", f"{self._stderr.strip()} {remedy}")
        return None

    def outcome(self, exit: Mapping[str, Any] | None) -> Outcome:
        """After an error it ends with exit code 1, also one that it got over: a conversation too long, which it shortens."""
        known = super().outcome(exit)
        code = (self._main_end or exit or {}).get("code")
        got_over = self._end == "stop" and bool(self._error) and code == 1
        return (
            Outcome("done", "The agent finished its turn.") if got_over and known.kind == "crashed" else known
        )


def _by_words(said: str) -> OutcomeKind | None:
    low = said.lower()
    return next((kind for word, kind in WORDS if word in low), None)


def _counts(tokens: Mapping[str, Any]) -> Counts:
    """Its counts in ours: what was thought is beside its output, what came from the cache beside its input."""
    cache, thoughts = mapping(tokens.get("cache")), number(tokens.get("reasoning"))
    return {
        "input": number(tokens.get("input")),
        "output": number(tokens.get("output")) + thoughts,
        "cache_read": number(cache.get("read")),
        "cache_write": number(cache.get("write")),
        "cache_write_1h": 0,
        "thinking": thoughts,
    }


def _unknown(kind: str, message: dict[str, Any]) -> Event:
    body: dict[str, Any] = {"note": clip(kind, 100)[0], "title": line_of(kind)}
    return Event("note", body | clipped(readable(bounded(message)), 4000))
