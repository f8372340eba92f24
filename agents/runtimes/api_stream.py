"""Reads the lines of our agent of the direct-API runtimes (api_agent).

Tolerant on purpose: what is not known becomes a `note`, what is not JSON becomes `output`, nothing raises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from .base import Event, Outcome, OutcomeKind, Redact
from .bounds import asked, bounded, clip, clipped, copied, line_of, mapping, number, readable, text
from .ledger import COUNTS, Ledger
from .lines import LineParser
from .refusals import REMEDIES, conversation_missing, kind_of_status, refused

MOST_OPEN = 64  # tool calls that are followed at a time
LIMIT = "requests"


class ApiParser(LineParser):
    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        super().__init__(state, redact)
        known = copied(state)
        self._ledger = Ledger(mapping(known.get("ledger")))
        self._model = text(known.get("model"))
        self._tools: dict[str, Any] = mapping(known.get("tools"))  # id -> name, of the open calls
        self._stop = text(known.get("stop"))  # how the last turn ended; empty while one goes on
        self._failure: dict[str, Any] = mapping(known.get("failure"))

    def state(self) -> dict[str, Any]:
        own = {
            "ledger": self._ledger.state(),
            "model": self._model,
            "tools": self._tools,
            "stop": self._stop,
            "failure": self._failure,
        }
        return super().state() | copied(own)

    def _message(self, message: dict[str, Any]) -> list[Event]:
        kind = text(message.get("type"))
        if kind == "started":
            return self._begin(message)
        if kind in ("text", "thinking"):
            return self._words(kind, message)
        if kind == "tool":
            return [self._tool_start(message)]
        if kind == "tool_end":
            return [self._tool_end(message)]
        if kind == "usage":
            return self._use(message)
        if kind == "retry":
            return self._retry(message)
        if kind == "permission":
            return [self._ask(message)]
        if kind == "permission_over":
            return [Event("permission_over", {"id": clip(text(message.get("id")), 50)[0]})]
        if kind == "turn_start":
            self._stop = ""
            return []
        if kind == "turn_end":
            self._stop = clip(text(message.get("stop")), 50)[0]
            return [Event("ended", {"error": self._stop != "done", "turns": number(message.get("requests"))})]
        if kind == "failed":
            return self._fail(message)
        if kind == "told":
            return [Event("note", {"note": "told", **clipped(text(message.get("text")), 4000)})]
        if kind == "waiting":
            return []  # it only says that it lives
        shown = {key: value for key, value in message.items() if key != "type"}
        body = {"note": clip(kind or "untyped", 100)[0], "title": line_of(kind or "untyped")}
        return [Event("note", body | clipped(readable(bounded(shown)), 4000))]

    def _begin(self, message: dict[str, Any]) -> list[Event]:
        self._model = clip(text(message.get("model")), 100)[0] or self._model
        if self._started:
            return []
        self._started = True
        body = {"model": self._model, "version": clip(text(message.get("version")), 50)[0]}
        return [Event("started", {**body, "tools": bounded(message.get("tools"), 100)})]

    def _words(self, kind: Literal["text", "thinking"] | str, message: dict[str, Any]) -> list[Event]:
        body = clipped(text(message.get("text"))) | ({"more": True} if message.get("more") is True else {})
        if not body["text"]:
            return []
        return [Event("thinking" if kind == "thinking" else "text", body)]

    # ---------------------------------------------------------------- what it does

    def _tool_start(self, message: dict[str, Any]) -> Event:
        name, call = (clip(text(message.get(key)), 100)[0] for key in ("name", "id"))
        given = mapping(message.get("input"))
        if len(self._tools) >= MOST_OPEN:
            self._tools.pop(next(iter(self._tools)))
        self._tools[call] = name
        title, details = summary(name, given)
        body: dict[str, Any] = {"id": call, "name": name, "title": title, **clipped(details)}
        path = text(given.get("path"))
        if name == "read_file" and path:
            body["reads"] = clip(path, 500)[0]
        return Event("tool_start", body)

    def _tool_end(self, message: dict[str, Any]) -> Event:
        call = clip(text(message.get("id")), 100)[0]
        name = text(self._tools.pop(call, None)) or clip(text(message.get("name")), 100)[0]
        body: dict[str, Any] = {"id": call, "name": name, "error": message.get("error") is True}
        body |= clipped(text(message.get("text")))
        if cut := number(message.get("cut")):
            body["cut"] = min(body.get("cut", 0) + cut, 2**63 - 1)
        files = message.get("files")
        if isinstance(files, list) and files:
            body["files"] = bounded(files, 300)
        return Event("tool_end", body)

    def _ask(self, message: dict[str, Any]) -> Event:
        tool, given = clip(text(message.get("tool")), 100)[0], mapping(message.get("input"))
        title, _ = summary(tool, given)
        body = {"id": clip(text(message.get("id")), 50)[0], "tool": tool, "text": title}
        return Event("permission", body | {"input": asked(given)})

    # ---------------------------------------------------------------- what it uses

    def _use(self, message: dict[str, Any]) -> list[Event]:
        """Cumulative over its request, and told again as the request goes on."""
        request = clip(text(message.get("request")), 100)[0]
        if not request:
            return []
        told = mapping(message.get("counts"))
        counts = {name: number(told.get(name)) for name in COUNTS}
        if self._ledger.has_seen(request):
            return self._ledger.grow("", counts)
        model = clip(text(message.get("model")), 100)[0] or self._model
        return self._ledger.start("", request, model, counts)

    def _retry(self, message: dict[str, Any]) -> list[Event]:
        body = {
            "attempt": number(message.get("attempt")),
            "most": number(message.get("most")),
            "delay_ms": number(message.get("delay_ms")),
            "status": number(message.get("status")) or None,
            "error": line_of(text(message.get("said"))),
        }
        return [Event("retry", body)]

    # ---------------------------------------------------------------- the end

    def _fail(self, message: dict[str, Any]) -> list[Event]:
        said = clip(text(message.get("said")), 2000)[0]
        self._failure = {
            "kind": clip(text(message.get("kind")), 50)[0],
            "status": number(message.get("status")),
            "said": said,
            "until": min(number(message.get("until")), 2**53),
        }
        events = [Event("ended", {"error": True, **clipped(said, 4000)})]
        if self._failure["kind"] == "rate_limited":
            limit = {"status": "rejected", "limit": LIMIT, "utilization": None}
            events.insert(0, Event("rate_limit", limit | {"resets_at": self._failure["until"] or None}))
        return events

    def _judged(self) -> Outcome | Literal["success"] | None:
        if self._failure:
            return judge(self._failure)
        if self._stop == "interrupted":
            return Outcome("stopped", "The agent was interrupted.", detail="interrupted")
        return "success" if self._stop == "done" else None


def judge(failure: Mapping[str, Any]) -> Outcome:
    """The outcome of a conversation that failed: {"kind", "status", "said", "until"}."""
    named, said = text(failure.get("kind")), text(failure.get("said"))
    if named == "conversation_missing":
        return conversation_missing(said)
    known = next((one for one in get_args(OutcomeKind) if one == named and one in REMEDIES), None)
    kind: OutcomeKind = known or kind_of_status(number(failure.get("status"))) or "crashed"
    return refused(kind, said, number(failure.get("until")) or None)


def summary(name: str, given: dict[str, Any]) -> tuple[str, str]:
    """A title of one line and the details of a call."""
    command, path = text(given.get("command")), text(given.get("path"))
    if name == "run_command":
        return line_of(f"$ {command}"), command
    if name == "start_command":
        return line_of(f"$ {command} &"), command
    if name == "write_file":
        return line_of(f"Write {path}"), text(given.get("content"))
    if name == "edit_file":
        return line_of(f"Edit {path}"), _change(given)
    if name == "read_file":
        return line_of(f"Read {path}"), ""
    about = text(given.get("pattern")) or path or text(given.get("command_id"))
    return line_of(f"{name or 'tool'} {about}".strip()), readable(bounded(given))


def _change(given: dict[str, Any]) -> str:
    several = given.get("replacements")
    pairs = [mapping(one) for one in several] if isinstance(several, list) else [given]
    lines: list[str] = []
    for pair in pairs[:MOST_OPEN]:
        lines += [f"-{line}" for line in text(pair.get("old_text")).splitlines()]
        lines += [f"+{line}" for line in text(pair.get("new_text")).splitlines()]
    return "\n".join(lines) or json.dumps(bounded(given), ensure_ascii=False)
