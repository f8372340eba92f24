"""Reads the JSON lines of `codex exec` (measured with 0.169.0), and those that `followed` adds.

Tolerant on purpose: what is not known becomes a `note`, what is not JSON becomes `output`, nothing raises.
Codex's own sum of tokens counts the whole conversation, so what was used before this run is taken off it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from .base import Event, Outcome, Redact
from .bounds import bounded, clip, clipped, copied, line_of, mapping, number, readable, text
from .codex_outcomes import judge
from .ledger import COUNTS, Counts, Ledger
from .lines import LineParser
from .refusals import conversation_missing

SOFT_PERCENT = 90.0
"""From this share of a limit on the account counts as throttled."""


class CodexParser(LineParser):
    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        super().__init__(state, redact)
        known = copied(state)
        self._ledger = Ledger(mapping(known.get("ledger")))
        self._model = text(known.get("model"))
        self._before: dict[str, Any] = mapping(
            known.get("before")
        )  # used by earlier runs of the conversation
        self._thread = text(known.get("thread"))
        self._limits: dict[str, Any] = mapping(known.get("limits"))
        self._said = text(known.get("said"))  # the last complaint
        self._end = text(known.get("end"))  # "completed" or "failed"
        self._waits = bool(known.get("waits", False))  # its last word was that it tries again

    def state(self) -> dict[str, Any]:
        own = {
            "ledger": self._ledger.state(),
            "model": self._model,
            "before": self._before,
            "thread": self._thread,
            "limits": self._limits,
            "said": self._said,
            "end": self._end,
            "waits": self._waits,
        }
        return super().state() | copied(own)

    def _message(self, message: dict[str, Any]) -> list[Event]:
        kind = text(message.get("type"))
        if kind.startswith("huskies."):
            return self._added(kind, message)
        self._waits = False
        if kind == "thread.started":
            return self._begin(message)
        if kind == "turn.started":
            return []
        if kind.startswith("item."):
            return self._item(kind, mapping(message.get("item")))
        if kind == "error":
            return self._complaint(text(message.get("message")))
        if kind == "turn.failed":
            self._said = clip(text(mapping(message.get("error")).get("message")), 2000)[0] or self._said
            self._end = "failed"
            return [Event("ended", {"error": True, **clipped(self._said, 4000)})]
        if kind == "turn.completed":
            return self._completed(mapping(message.get("usage")))
        return [_unknown(kind or "untyped", message)]

    def _begin(self, message: dict[str, Any]) -> list[Event]:
        if self._started:
            return []
        self._started = True
        self._thread = clip(text(message.get("thread_id")), 100)[0]
        return [Event("started", {"conversation": self._thread, "model": self._model})]

    # ---------------------------------------------------------------- what followed adds

    def _added(self, kind: str, message: dict[str, Any]) -> list[Event]:
        if kind == "huskies.begin":
            self._model = clip(text(message.get("model")), 100)[0]
            self._before = _counts(mapping(message.get("used")))
            return []
        if kind == "huskies.usage":
            request, thread = text(message.get("request")), text(message.get("thread"))
            if not request or self._ledger.has_seen(request):
                return []
            place = clip(thread, 100)[0] if thread and self._thread and thread != self._thread else ""
            return self._ledger.start(place, request, self._model, _counts(mapping(message.get("usage"))))
        if kind == "huskies.limits":
            return self._rate_limits(mapping(message.get("rate_limits")))
        if kind == "huskies.gave_up":
            self._end = "failed"
            said = f"It waited for the provider for {number(message.get('seconds'))} seconds. {self._said}"
            return [Event("ended", {"error": True, **clipped(said, 4000)})]
        return [_unknown(kind, message)]

    def _rate_limits(self, limits: dict[str, Any]) -> list[Event]:
        """The fullest of the account's windows. It only warns: a refusal is told by the turn's end."""
        windows = [(name, mapping(limits.get(name))) for name in ("primary", "secondary")]
        known = [(name, one) for name, one in windows if one]
        if not known:
            return []
        name, fullest = max(known, key=lambda pair: number(pair[1].get("used_percent")))
        percent = number(fullest.get("used_percent"))
        body = {
            "status": "allowed_warning" if percent >= SOFT_PERCENT else "allowed",
            "limit": name,
            "resets_at": number(fullest.get("resets_at")) or None,
            "utilization": percent / 100,
        }
        if body == self._limits:
            return []
        self._limits = body
        return [Event("rate_limit", body)]

    # ---------------------------------------------------------------- what it does

    def _item(self, kind: str, item: dict[str, Any]) -> list[Event]:
        what, done = text(item.get("type")), kind == "item.completed"
        call = clip(text(item.get("id")), 100)[0]
        if what in ("agent_message", "reasoning"):
            if not done or not item.get("text"):
                return []
            name: Literal["text", "thinking"] = "text" if what == "agent_message" else "thinking"
            return [Event(name, {"message": call, **clipped(text(item.get("text")))})]
        if what == "command_execution":
            return self._command(kind, call, item)
        if what == "file_change":
            return self._change(kind, call, item)
        if what == "error":  # such as an unknown model's missing description: the turn goes on
            return [Event("note", {"note": "complaint", **clipped(text(item.get("message")), 4000)})]
        if what in ("mcp_tool_call", "web_search") and kind in ("item.started", "item.completed"):
            title = line_of(text(item.get("tool")) or text(item.get("query")) or what)
            if not done:
                return [Event("tool_start", {"id": call, "name": what, "title": title, "text": ""})]
            body = {"id": call, "name": what, "error": item.get("status") == "failed"}
            return [Event("tool_end", body | clipped(readable(bounded(item.get("result") or ""))))]
        return [_unknown(what or "item", item)] if done else []

    def _command(self, kind: str, call: str, item: dict[str, Any]) -> list[Event]:
        command = text(item.get("command"))
        if kind == "item.started":
            body = {"id": call, "name": "shell", "title": line_of(f"$ {_plain(command)}")}
            return [Event("tool_start", body | clipped(command))]
        if kind != "item.completed":
            return []
        code = item.get("exit_code")
        ended = {"id": call, "name": "shell", "error": item.get("status") not in ("completed", None)}
        if isinstance(code, int) and not isinstance(code, bool):
            ended |= {"code": bounded(code)}
        return [Event("tool_end", ended | clipped(text(item.get("aggregated_output"))))]

    def _change(self, kind: str, call: str, item: dict[str, Any]) -> list[Event]:
        given = item.get("changes")
        changes = [mapping(one) for one in given] if isinstance(given, list) else []
        paths = [text(one.get("path")) for one in changes]
        if kind == "item.started":
            words = [f"{text(one.get('kind'))} {text(one.get('path'))}" for one in changes]
            title = line_of(", ".join(words) or "change files")
            return [Event("tool_start", {"id": call, "name": "edit", "title": title, "text": ""})]
        if kind != "item.completed":
            return []
        failed = item.get("status") != "completed"
        body: dict[str, Any] = {"id": call, "name": "edit", "error": failed, "text": ""}
        if paths and not failed:
            body["files"] = bounded(paths, 300)
        return [Event("tool_end", body)]

    def _complaint(self, said: str) -> list[Event]:
        """Most are tries of its own, which the turn survives; the last one is why it failed."""
        self._said = clip(said, 2000)[0]
        if not said.startswith("Reconnecting"):
            return [Event("note", {"note": "provider_error", **clipped(said, 4000)})]
        self._waits = True
        words = said.removeprefix("Reconnecting...").strip().partition(" ")
        attempt, _, most = words[0].partition("/")
        body = {
            "attempt": int(attempt) if attempt.isdecimal() and len(attempt) < 9 else 0,
            "most": int(most) if most.isdecimal() and len(most) < 9 else 0,
            "delay_ms": 0,
            "status": None,
            "error": line_of(said),
        }
        return [Event("retry", body)]

    def _completed(self, usage: dict[str, Any]) -> list[Event]:
        self._end = "completed"
        whole = _counts(usage)
        run = {kind: max(0, whole[kind] - number(self._before.get(kind))) for kind in COUNTS}
        events = self._ledger.settle({self._model: run}, "turn") if self._model else []
        return [*events, Event("ended", {"error": False, "text": ""})]

    def _judged(self) -> Outcome | Literal["success"] | None:
        if self._end == "completed":
            return "success"
        if self._end == "failed":
            return judge(self._said)
        if "no rollout found" in self._stderr.lower():
            return conversation_missing()
        return None

    def outcome(self, exit: Mapping[str, Any] | None) -> Outcome:
        """Codex waits for a provider without end (a day, if it is told to): ended while it did, that is the reason."""
        known = super().outcome(exit)
        if known.kind not in ("hung", "stopped") or not self._waits:
            return known
        waited_for = judge(self._said)
        if waited_for.kind == "rate_limited" or (known.kind == "hung" and waited_for.kind == "overloaded"):
            return waited_for
        return known


def _counts(usage: Mapping[str, Any]) -> Counts:
    """Codex's counts in ours: its input includes what came from the cache and what was written to it."""
    read = number(usage.get("cached_input_tokens"))
    written = number(usage.get("cache_write_input_tokens"))
    return {
        "input": max(0, number(usage.get("input_tokens")) - read - written),
        "output": number(usage.get("output_tokens")),
        "cache_read": read,
        "cache_write": written,
        "cache_write_1h": 0,
        "thinking": number(usage.get("reasoning_output_tokens")),
    }


def _plain(command: str) -> str:
    """The command within `/bin/bash -lc '…'`."""
    head, found, rest = command.partition(" -lc ")
    return rest.strip("'\"") if found and head.endswith("sh") else command


def _unknown(kind: str, message: dict[str, Any]) -> Event:
    body: dict[str, Any] = {"note": clip(kind, 100)[0], "title": line_of(kind)}
    return Event("note", body | clipped(readable(bounded(message)), 4000))
