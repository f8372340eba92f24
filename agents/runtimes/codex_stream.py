"""Reads the lines of the `codex` runtime's client (codex_agent): its own, and in them what Codex's app server told (measured with 0.169.0).

A request's tokens come from Codex's record, whole and once. Its own sum counts the whole conversation: what was used before this
run is taken off it, and what no request has shown is booked when a turn is over.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Literal

from .base import Event, Outcome, Redact
from .bounds import asked, bounded, clean, clip, clipped, copied, line_of, mapping, number, readable, text
from .client_stream import ClientParser, WordKind, strange
from .codex_outcomes import judge, judge_failure, said_of, status_of
from .ledger import COUNTS, Counts, Ledger

SOFT_PERCENT = 90.0
"""From this share of a limit on the account counts as throttled."""
MOST_OPEN = 64  # calls that are followed at a time
MOST_COMMAND = 16 * 1024  # characters of a command that are taken apart
DELTAS: dict[str, WordKind] = {
    "item/agentMessage/delta": "text",
    "item/plan/delta": "text",
    "item/reasoning/summaryTextDelta": "thinking",
    "item/reasoning/textDelta": "thinking",
}
WORDS: dict[str, WordKind] = {"agentMessage": "text", "plan": "text", "reasoning": "thinking"}
WARNINGS = ("warning", "guardianWarning", "configWarning", "deprecationNotice")
NAMES = {"commandExecution": "shell", "fileChange": "edit"}


class CodexParser(ClientParser):
    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        super().__init__(state, redact)
        known = copied(state)
        self._ledger = Ledger(mapping(known.get("ledger")))
        self._model = text(known.get("model"))
        self._thread = text(known.get("thread"))
        self._copy = text(known.get("copy"))
        self._calls: dict[str, Any] = mapping(known.get("calls"))  # id -> the item, while it goes on
        self._spoken = text(known.get("spoken"))  # the id of the message whose words came in pieces
        self._before: dict[str, Any] = mapping(known.get("before"))  # what earlier runs had used, by the sum
        self._sum: dict[str, Any] = mapping(known.get("sum"))
        self._turn = text(known.get("turn"))  # its id
        self._limits: dict[str, Any] = mapping(known.get("limits"))
        self._full_until = number(known.get("full_until"))  # when the limits that are used up are over
        self._error: dict[str, Any] = mapping(known.get("error"))  # the last complaint
        self._end = text(known.get("end"))  # of the last turn; empty while one goes on
        self._failure: dict[str, Any] = mapping(known.get("failure"))
        self._waits = bool(known.get("waits", False))  # its last word was that it tries again

    def state(self) -> dict[str, Any]:
        own = {
            "ledger": self._ledger.state(),
            "model": self._model,
            "thread": self._thread,
            "copy": self._copy,
            "calls": self._calls,
            "spoken": self._spoken,
            "before": self._before,
            "sum": self._sum,
            "turn": self._turn,
            "limits": self._limits,
            "full_until": self._full_until,
            "error": self._error,
            "end": self._end,
            "failure": self._failure,
            "waits": self._waits,
        }
        return super().state() | copied(own)

    def _own(self, kind: str, message: dict[str, Any]) -> list[Event]:
        if kind == "started":
            return self._begin(message)
        if kind == "turn_start":
            self._turn, self._end = clip(text(message.get("turn")), 100)[0], ""
            return []
        if kind == "usage":
            return self._request(message)
        if kind in ("turn_over", "turn_end"):
            return self._turn_end(message)
        if kind == "permission":
            return self._ask(message)
        if kind == "permission_over":
            return [Event("permission_over", {"id": clip(text(message.get("id")), 50)[0]})]
        if kind == "allowed":
            return []
        if kind == "failed":
            self._failure = bounded({key: message.get(key) for key in ("at", "said", "code")}, 2000)
            known = self._judged()
            said = known.reason if isinstance(known, Outcome) else text(self._failure["at"])
            return [Event("ended", {"error": True, **clipped(said, 4000)})]
        return [strange(kind, message)]

    def _begin(self, message: dict[str, Any]) -> list[Event]:
        if self._started:
            return []
        self._started = True
        self._thread, self._model = (clip(text(message.get(key)), 100)[0] for key in ("thread", "model"))
        self._copy = clip(text(message.get("copy")), 4096)[0]
        resumed = message.get("resumed") is True
        self._before = dict(self._sum) if resumed else dict.fromkeys(COUNTS, 0)
        return [Event("started", {"conversation": self._thread, "model": self._model})]

    # ---------------------------------------------------------------- what it says and does

    def _update(self, message: dict[str, Any]) -> list[Event]:
        method, told = text(message.get("method")), mapping(message.get("params"))
        if method in DELTAS:
            self._waits = False
            self._spoken = clip(text(told.get("itemId")), 100)[0]
            return self._say(DELTAS[method], clean(text(told.get("delta"))))
        if method == "thread/tokenUsage/updated":
            return self._used(mapping(told.get("tokenUsage")))
        if method == "account/rateLimits/updated":
            return self._rate_limits(mapping(told.get("rateLimits")))
        return [*self._rest(), *self._act(method, told)]

    def _act(self, method: str, told: dict[str, Any]) -> list[Event]:
        if method in ("item/started", "item/completed"):
            self._waits = False
            return self._item(mapping(told.get("item")), done=method == "item/completed")
        if method == "error":
            return self._complaint(mapping(told.get("error")), tries_again=told.get("willRetry") is True)
        if method in WARNINGS:  # such as an unknown model's missing description
            said = " ".join(text(told.get(name)) for name in ("message", "summary", "details"))
            return [Event("note", {"note": "complaint", **clipped(said.strip(), 4000)})]
        if method == "turn/plan/updated":
            given = told.get("plan")
            steps = [mapping(one) for one in given[:64]] if isinstance(given, list) else []
            lines = "\n".join(f"[{text(one.get('status'))}] {text(one.get('step'))}" for one in steps)
            return [Event("note", {"note": "plan", "title": "Plan", **clipped(lines, 4000)})]
        return [strange(method, told)]

    def _item(self, item: dict[str, Any], *, done: bool) -> list[Event]:
        what, call = text(item.get("type")), clip(text(item.get("id")), 100)[0]
        if what in WORDS:
            return self._spoke(WORDS[what], call, item) if done else []
        if done:
            self._calls.pop(call, None)
        elif len(self._calls) < MOST_OPEN and what in NAMES:
            self._calls[call] = asked(item)
        if what == "commandExecution":
            return [_ran(call, item) if done else _runs(call, item)]
        if what == "fileChange":
            return [_changed(call, item) if done else _changes(call, item)]
        if what in ("mcpToolCall", "webSearch", "dynamicToolCall"):
            title = line_of(text(item.get("tool")) or text(item.get("query")) or what)
            if not done:
                return [Event("tool_start", {"id": call, "name": what, "title": title, "text": ""})]
            body = {"id": call, "name": what, "error": item.get("status") == "failed"}
            return [Event("tool_end", body | clipped(readable(bounded(item.get("result") or ""))))]
        return [strange(what or "item", item)] if done else []

    def _spoke(self, kind: WordKind, call: str, item: dict[str, Any]) -> list[Event]:
        """A message that is whole; nothing more where its words came in pieces."""
        if call == self._spoken:
            return []
        summary = item.get("summary")
        parts = [one for one in summary if isinstance(one, str)] if isinstance(summary, list) else []
        said = clean(text(item.get("text")) or "\n".join(parts))
        return [*self._say(kind, said), *self._rest()] if said else []

    def _complaint(self, error: dict[str, Any], *, tries_again: bool) -> list[Event]:
        """Most are tries of its own, which the turn survives; the last one is why it failed."""
        self._error = bounded(error, 2000)
        said = said_of(self._error)
        self._waits = tries_again
        if not tries_again:
            return [Event("note", {"note": "provider_error", **clipped(said, 4000)})]
        attempt, _, most = text(error.get("message")).removeprefix("Reconnecting...").strip().partition("/")
        body = {
            "attempt": _small(attempt),
            "most": _small(most),
            "delay_ms": 0,
            "status": status_of(self._error),
            "error": line_of(said),
        }
        return [Event("retry", body)]

    # ---------------------------------------------------------------- what it asks

    def _ask(self, message: dict[str, Any]) -> list[Event]:
        asks = mapping(message.get("request"))
        call = clip(text(asks.get("itemId")), 100)[0]
        item = mapping(self._calls.get(call))
        if asks.get("command") or item.get("type") == "commandExecution":
            tool, given = "shell", self._shell_input(asks, item)
        else:
            tool, given = "edit", _edit_input(item)
        title = line_of(str(given.get("command") or ", ".join(_paths(item)) or tool))
        reason = text(asks.get("reason"))
        said = f"{title}\n{reason}" if reason else title
        body = {"id": clip(text(message.get("id")), 50)[0], "tool": tool, "input": asked(given)}
        return [Event("permission", body | clipped(said, 4000))]

    def _shell_input(self, asks: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, Any]:
        """The command as it will be run, with the folder where that is another."""
        command = _plain(text(asks.get("command")) or text(item.get("command")))
        folder = text(asks.get("cwd")) or text(item.get("cwd"))
        elsewhere = folder not in ("", self._copy)
        return {"command": f"cd {shlex.quote(folder)} && {command}" if elsewhere else command}

    # ---------------------------------------------------------------- what it uses

    def _request(self, message: dict[str, Any]) -> list[Event]:
        request, thread = text(message.get("request")), text(message.get("thread"))
        if not request or self._ledger.has_seen(request):
            return []
        place = clip(thread, 100)[0] if thread and self._thread and thread != self._thread else ""
        usage = mapping(message.get("usage"))
        names = ("input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens", "reasoning_output_tokens")  # fmt: skip
        return self._ledger.start(place, request, self._model, _counts(*(usage.get(name) for name in names)))

    def _used(self, usage: dict[str, Any]) -> list[Event]:
        """Codex's own sum; of a conversation that goes on it is told before the first turn, and perhaps before its name."""
        self._sum = _summed(mapping(usage.get("total")))
        if not self._turn:
            self._before = dict(self._sum)
        return []

    def _unseen(self) -> list[Event]:
        run = {kind: max(0, number(self._sum.get(kind)) - number(self._before.get(kind))) for kind in COUNTS}
        return self._ledger.settle({self._model: run}, self._turn or "turn")

    def _rate_limits(self, limits: dict[str, Any]) -> list[Event]:
        """The fullest of the account's windows. It only warns: a refusal is told by the turn's end."""
        windows = [(name, mapping(limits.get(name))) for name in ("primary", "secondary")]
        known = [(name, one) for name, one in windows if one]
        if not known:
            return []
        full = [number(one.get("resetsAt")) for _, one in known if number(one.get("usedPercent")) >= 100]
        self._full_until = max(full, default=0)
        name, fullest = max(known, key=lambda pair: number(pair[1].get("usedPercent")))
        percent = number(fullest.get("usedPercent"))
        body = {
            "status": "allowed_warning" if percent >= SOFT_PERCENT else "allowed",
            "limit": name,
            "resets_at": number(fullest.get("resetsAt")) or None,
            "utilization": percent / 100,
        }
        if body == self._limits:
            return []
        self._limits = body
        return [*self._rest(), Event("rate_limit", body)]

    # ---------------------------------------------------------------- the end

    def _turn_end(self, message: dict[str, Any]) -> list[Event]:
        self._end = clip(text(message.get("status")), 50)[0] or "failed"
        self._calls, self._waits = {}, False
        if self._end == "failed":
            self._error = bounded(mapping(message.get("error")), 2000) or self._error
        events = self._unseen() if self._before and self._model else []
        bad = self._judged()
        said = bad.reason if self._end == "interrupted" and isinstance(bad, Outcome) else ""
        if self._end == "failed":
            said = said_of(self._error)
        return [*events, Event("ended", {"error": self._end != "completed", **clipped(said, 4000)})]

    def _judged(self) -> Outcome | Literal["success"] | None:
        if self._failure:
            return judge_failure(self._failure, self._error, started=self._started)
        if self._end == "completed":
            return "success"
        if self._end == "interrupted":
            return Outcome("stopped", "The agent was interrupted.", detail="interrupted")
        return judge(self._error, self._full_until or None) if self._end else None

    def outcome(self, exit: Mapping[str, Any] | None) -> Outcome:
        """Codex waits for a provider without end (a day, if it is told to): ended while it did, that is the reason."""
        known = super().outcome(exit)
        if known.kind not in ("hung", "stopped") or not self._waits:
            return known
        waited_for = judge(self._error)
        if waited_for.kind == "rate_limited" or (known.kind == "hung" and waited_for.kind == "overloaded"):
            return waited_for
        return known


# ---------------------------------------------------------------- calls


def _runs(call: str, item: Mapping[str, Any]) -> Event:
    command = _plain(text(item.get("command")))
    body = {"id": call, "name": "shell", "title": line_of(f"$ {command}")}
    return Event("tool_start", body | clipped(command))


def _ran(call: str, item: Mapping[str, Any]) -> Event:
    code = item.get("exitCode")
    ended = {"id": call, "name": "shell", "error": item.get("status") not in ("completed", None)}
    if isinstance(code, int) and not isinstance(code, bool):
        ended |= {"code": bounded(code)}
    return Event("tool_end", ended | clipped(text(item.get("aggregatedOutput"))))


def _changes(call: str, item: Mapping[str, Any]) -> Event:
    changes = _changes_of(item)
    words = [f"{_kind_of(one)} {text(one.get('path'))}" for one in changes]
    title = line_of(", ".join(words) or "change files")
    diffs = "\n".join(f"{word}\n{text(one.get('diff'))}" for word, one in zip(words, changes, strict=True))
    return Event("tool_start", {"id": call, "name": "edit", "title": title, **clipped(diffs)})


def _changed(call: str, item: Mapping[str, Any]) -> Event:
    failed = item.get("status") != "completed"
    body: dict[str, Any] = {"id": call, "name": "edit", "error": failed, "text": ""}
    if (paths := _paths(item)) and not failed:
        body["files"] = bounded(paths, 300)
    return Event("tool_end", body)


def _edit_input(item: Mapping[str, Any]) -> dict[str, Any]:
    """What a person judges; of one file its path, on which rules may be written."""
    changes, paths = _changes_of(item), _paths(item)
    told = [
        {"path": text(one.get("path")), "change": _kind_of(one), "diff": text(one.get("diff"))}
        for one in changes
    ]
    if len(told) == len(paths) == 1:
        return {"file_path": paths[0], "change": told[0]["change"], "diff": told[0]["diff"]}
    return {"paths": paths, "changes": told}


def _changes_of(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = item.get("changes")
    return [mapping(one) for one in given] if isinstance(given, list) else []


def _paths(item: Mapping[str, Any]) -> list[str]:
    """The files that a change is about, also those that get the content of another."""
    found = []
    for one in _changes_of(item):
        found += [text(one.get("path")), text(mapping(one.get("kind")).get("move_path"))]
    return [path for path in found if path]


def _kind_of(change: Mapping[str, Any]) -> str:
    kind = mapping(change.get("kind"))
    moved = text(kind.get("move_path"))
    return f"{text(kind.get('type'))} to {moved} from" if moved else text(kind.get("type"))


def _plain(command: str) -> str:
    """The command within `/bin/bash -lc '…'`, letter by letter."""
    if len(command) > MOST_COMMAND:
        return command
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    is_shell = len(words) == 3 and words[0].endswith("sh") and words[1] in ("-c", "-lc")
    return words[2] if is_shell else command


# ---------------------------------------------------------------- counts


def _summed(total: Mapping[str, Any]) -> Counts:
    names = ("inputTokens", "cachedInputTokens", "cacheWriteInputTokens", "outputTokens", "reasoningOutputTokens")  # fmt: skip
    return _counts(*(total.get(name) for name in names))


def _counts(given: object, read: object, written: object, output: object, thought: object) -> Counts:
    """Codex's counts in ours: its input includes what came from the cache and what was written to it."""
    return {
        "input": max(0, number(given) - number(read) - number(written)),
        "output": number(output),
        "cache_read": number(read),
        "cache_write": number(written),
        "cache_write_1h": 0,
        "thinking": number(thought),
    }


def _small(digits: str) -> int:
    return int(digits) if digits.isdecimal() and len(digits) < 9 else 0
