"""Reads the lines of the `acp` runtime's client (acp_agent): its own, and in them the program's updates as they came.

Tokens are known when a turn is over, if the program tells them at all; money that it tells meanwhile is booked as it grows, and
what the tokens cost beyond that at the turn's end.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from agents.prices import canonical

from . import acp_outcomes
from .acp_calls import counts_of, details_of, input_of, output_of, paths_of
from .base import Event, Outcome, Redact
from .bounds import bounded, clean, clip, clipped, copied, line_of, mapping, number, text
from .client_stream import ClientParser, WordKind, strange
from .ledger import COUNTS, Counts, Ledger

MOST_OPEN = 64  # tool calls that are followed at a time
MOST_USD = Decimal(1_000_000)
UNKNOWN_MODEL = "unknown"
WORD_KINDS: dict[str, WordKind] = {
    "agent_message_chunk": "text",
    "agent_thought_chunk": "thinking",
}
SILENT = ("user_message_chunk", "available_commands_update", "session_info_update", "config_option_update")
CHANGING = ("edit", "delete", "move")
CALL = ("title", "kind", "content", "locations", "rawInput")  # what is kept of a call while it is open


class AcpParser(ClientParser):
    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        super().__init__(state, redact)
        known = copied(state)
        self._ledger = Ledger(mapping(known.get("ledger")))
        self._model = text(known.get("model"))
        self._tools: dict[str, Any] = mapping(known.get("tools"))  # id -> the call as it is known so far
        self._asked: dict[str, Any] = mapping(
            known.get("asked")
        )  # id of the question -> the call it is about
        self._turn = number(known.get("turn"))
        self._used: dict[str, Any] = mapping(
            known.get("used")
        )  # the program's own counts at the end of the last turn
        self._cost = text(known.get("cost"))  # what it has told so far, in USD
        self._begin_cost = text(known.get("begin_cost"))
        self._turn_cost = text(known.get("turn_cost")) or "0"  # of that, in this turn
        self._requests = number(known.get("requests"))  # that were told one by one
        self._stop = text(known.get("stop"))  # why the last turn ended; empty while one goes on
        self._failure: dict[str, Any] = mapping(known.get("failure"))

    def state(self) -> dict[str, Any]:
        own = {
            "ledger": self._ledger.state(),
            "model": self._model,
            "tools": self._tools,
            "asked": self._asked,
            "turn": self._turn,
            "used": self._used,
            "cost": self._cost,
            "begin_cost": self._begin_cost,
            "turn_cost": self._turn_cost,
            "requests": self._requests,
            "stop": self._stop,
            "failure": self._failure,
        }
        return super().state() | copied(own)

    def _own(self, kind: str, message: dict[str, Any]) -> list[Event]:
        if kind == "started":
            return self._begin(message)
        if kind == "turn_start":
            self._turn, self._stop, self._turn_cost = self._turn + 1, "", "0"
            return []
        if kind in ("turn_over", "turn_end"):
            return self._turn_end(message)
        if kind == "permission":
            return self._ask(message)
        if kind == "permission_over":
            return self._answered(message)
        if kind == "allowed":
            return self._allowed(mapping(mapping(message.get("request")).get("toolCall")))
        if kind == "failed":
            self._failure = bounded({key: message.get(key) for key in ("at", "said", "code")}, 4000)
            said = f"{text(self._failure['at'])}: {text(self._failure['said'])}"
            return [Event("ended", {"error": True, **clipped(said, 4000), **self._told_cost()})]
        return [strange(kind, message)]

    def _begin(self, message: dict[str, Any]) -> list[Event]:
        self._model = clip(text(message.get("model")), 100)[0] or self._model
        if self._started:
            return []
        self._started = True
        self._used, cost = bounded(mapping(message.get("used"))), _usd(message.get("cost"))
        self._cost = self._begin_cost = "" if cost is None else str(cost)
        shown = {name: clip(text(message.get(name)), 100)[0] for name in ("program", "version", "mode")}
        conversation = clip(text(message.get("session")), 200)[0]
        return [
            Event(
                "started",
                {"conversation": conversation, "model": self._model, **{k: v for k, v in shown.items() if v}},
            )
        ]

    # ---------------------------------------------------------------- what it says and does

    def _update(self, message: dict[str, Any]) -> list[Event]:
        update = mapping(message.get("update"))
        kind = text(update.get("sessionUpdate"))
        if kind in WORD_KINDS:
            return self._speak(WORD_KINDS[kind], update)
        if kind == "usage_update":
            return self._grow_cost(mapping(update.get("cost")))
        if kind in SILENT:
            return []
        return [*self._rest(), *self._act(kind, update)]

    def _act(self, kind: str, update: dict[str, Any]) -> list[Event]:
        if kind in ("tool_call", "tool_call_update"):
            return self._tool(update)
        if kind == "plan":
            steps = (
                [mapping(one) for one in update.get("entries") or ()]
                if isinstance(update.get("entries"), list)
                else []
            )
            lines = [f"[{text(one.get('status'))}] {text(one.get('content'))}" for one in steps[:64]]
            return [Event("note", {"note": "plan", "title": "Plan", **clipped("\n".join(lines), 4000)})]
        if kind == "current_mode_update":
            mode = clip(text(update.get("currentModeId")), 100)[0]
            return [Event("note", {"note": "mode", "title": f"Mode: {mode}"})]
        return [strange(kind, update)]

    def _speak(self, kind: WordKind, update: dict[str, Any]) -> list[Event]:
        content = mapping(update.get("content"))
        if used := mapping(mapping(update.get("_meta")).get("usage")):  # Qwen Code: of one request
            self._requests += 1
            name = f"turn-{self._turn}-{self._requests}"
            return self._ledger.start("", name, self._model or UNKNOWN_MODEL, counts_of(used))
        said = clean(text(content.get("text")))
        if not said and content.get("type") not in ("text", None):
            said = f"[{clip(text(content.get('type')), 50)[0]}]"  # an image, a sound, a resource
        return self._say(kind, said)

    def _tool(self, update: dict[str, Any]) -> list[Event]:
        """Some programs tell of a call before they know what it is: it begins when that is told, or its run."""
        call = clip(text(update.get("toolCallId")), 100)[0]
        status, known = text(update.get("status")), self._known(call, update)
        ends = status in ("completed", "failed")
        begins = not known.get("begun") and (ends or status == "in_progress" or bool(details_of(known)))
        events = [self._tool_start(call, known)] if begins else []
        if not ends:
            return events
        self._tools.pop(call, None)
        name = _name_of(known)
        body: dict[str, Any] = {
            "id": call,
            "name": name,
            "error": status == "failed",
            **clipped(output_of(update)),
        }
        if name in CHANGING and status == "completed" and (paths := paths_of(known)):
            body["files"] = paths
        return [*events, Event("tool_end", body)]

    def _known(self, call: str, update: Mapping[str, Any]) -> dict[str, Any]:
        """The call with what this update adds to it."""
        known = mapping(self._tools.get(call))
        if not known and len(self._tools) >= MOST_OPEN:
            self._tools.pop(next(iter(self._tools)))
        self._tools[call] = known | {name: bounded(update[name], 4000) for name in CALL if update.get(name)}
        return mapping(self._tools[call])

    def _tool_start(self, call: str, known: dict[str, Any]) -> Event:
        known["begun"] = True
        name, paths = _name_of(known), paths_of(known)
        title = line_of(text(known.get("title")) or name)
        body: dict[str, Any] = {"id": call, "name": name, "title": title, **clipped(details_of(known))}
        if name == "read" and paths:
            body["reads"] = paths[0]
        return Event("tool_start", body)

    # ---------------------------------------------------------------- what it asks

    def _ask(self, message: dict[str, Any]) -> list[Event]:
        key, call = (
            clip(text(message.get("id")), 50)[0],
            mapping(mapping(message.get("request")).get("toolCall")),
        )
        named = clip(text(call.get("toolCallId")), 100)[0]
        known = self._known(named, call)
        if len(self._asked) >= MOST_OPEN:
            self._asked.pop(next(iter(self._asked)))
        self._asked[key] = named
        tool, title = _name_of(known), text(known.get("title"))
        body = {
            "id": key,
            "tool": tool,
            "input": input_of(tool, title, known),
            **clipped(title or tool, 4000),
        }
        return [Event("permission", body)]

    def _answered(self, message: dict[str, Any]) -> list[Event]:
        key = clip(text(message.get("id")), 50)[0]
        named = text(self._asked.pop(key, ""))
        over = Event("permission_over", {"id": key})
        return [over, *(self._allowed({"toolCallId": named}) if message.get("allowed") is True else [])]

    def _allowed(self, call: dict[str, Any]) -> list[Event]:
        """Some programs tell of a call that was allowed only when it is over."""
        named = clip(text(call.get("toolCallId")), 100)[0]
        known = self._known(named, call)
        return [] if known.get("begun") or not named else [self._tool_start(named, known)]

    # ---------------------------------------------------------------- what it uses

    def _grow_cost(self, cost: dict[str, Any]) -> list[Event]:
        amount = _usd(cost.get("amount")) if text(cost.get("currency")) in ("", "USD") else None
        grown = amount - (_usd(self._cost) or Decimal()) if amount is not None else Decimal()
        if amount is None or grown <= 0:
            return []
        self._cost = str(amount)
        self._turn_cost = str((_usd(self._turn_cost) or Decimal()) + grown)
        body = {
            "request_id": f"turn-{self._turn}",
            "model": self._model or UNKNOWN_MODEL,
            **dict.fromkeys(COUNTS, 0),
        }
        return [Event("usage", {**body, "cost_usd": format(grown, "f")})]

    def _told_cost(self) -> dict[str, str]:
        """What the program says that this run cost."""
        told = _usd(self._cost)
        return (
            {}
            if told is None
            else {"program_run_cost_usd": str(told - (_usd(self._begin_cost) or Decimal()))}
        )

    def _turn_end(self, message: dict[str, Any]) -> list[Event]:
        self._stop = clip(text(message.get("stop")), 100)[0] or "end_turn"
        self._tools = {}
        events: list[Event] = []
        for model, counts in self._spent(mapping(message.get("usage")), mapping(message.get("meta"))):
            events += self._book(model, counts)
        booked = _usd(self._turn_cost) or Decimal()
        for event in events:
            priced = Decimal(event.body["cost_usd"])
            event.body["cost_usd"] = format(max(Decimal(), priced - booked), "f")
            booked = max(Decimal(), booked - priced)
        bad = acp_outcomes.judge_stop(self._stop)
        said = bad.reason if bad is not None else ""
        return [
            *events,
            Event("ended", {"error": bad is not None, **clipped(said, 4000), **self._told_cost()}),
        ]

    def _book(self, model: str, counts: Counts) -> list[Event]:
        """A turn has any number of requests, which nobody tells of one by one."""
        before = mapping(mapping(self._ledger.state()["totals"]).get(canonical(model)))
        whole = {name: number(before.get(name)) + counts[name] for name in COUNTS}
        events = self._ledger.settle({model: whole}, "turn")
        for event in events:
            event.body["request_id"] = f"turn-{self._turn}"
        return events

    def _spent(self, usage: dict[str, Any], meta: dict[str, Any]) -> list[tuple[str, Counts]]:
        """By model. The protocol's own counts are those of the whole conversation; Gemini CLI tells those of the turn, elsewhere."""
        if self._requests:
            return []
        if usage:
            before, self._used = self._used, bounded(usage)
            began_anew = any(number(usage.get(name)) < number(before.get(name)) for name in before)
            new = {
                name: number(value) - (0 if began_anew else number(before.get(name)))
                for name, value in usage.items()
            }
            return [(self._model or UNKNOWN_MODEL, counts_of(new))]
        told = mapping(meta.get("quota")).get("model_usage")
        found = []
        for one in told[:32] if isinstance(told, list) else []:
            tokens, model = mapping(mapping(one).get("token_count")), text(mapping(one).get("model"))
            counts = dict.fromkeys(COUNTS, 0) | {
                "input": number(tokens.get("input_tokens")),
                "output": number(tokens.get("output_tokens")),
            }
            found.append((model or self._model or UNKNOWN_MODEL, counts))
        return found

    # ---------------------------------------------------------------- the end

    def _judged(self) -> Outcome | Literal["success"] | None:
        if self._failure:
            return acp_outcomes.judge(self._failure, self._started)
        if not self._stop:
            return None
        return acp_outcomes.judge_stop(self._stop) or "success"


def _name_of(call: Mapping[str, Any]) -> str:
    return clip(text(call.get("kind")), 50)[0] or "tool"


def _usd(value: object) -> Decimal | None:
    """An amount of money that may be booked; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount.quantize(Decimal("0.000001")) if amount.is_finite() and 0 <= amount <= MOST_USD else None
