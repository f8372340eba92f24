"""Reads Claude Code's stream of JSON lines (measured with 2.1.330).

Tolerant on purpose: new types and fields come with nearly every release. What is not known becomes a
`note`, what is not JSON becomes `output`, and nothing raises. The raw lines stay in the runner's log.

The text of an answer arrives in small pieces and is passed on line by line (`more` says that its
block goes on); the whole block, which follows, then only adds the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from .base import Event, Outcome, Redact
from .bounds import (
    BODY_BYTES,
    asked,
    bounded,
    clean,
    clip,
    clipped,
    copied,
    line_of,
    mapping,
    number,
    readable,
    text,
    word,
)
from .claude_outcomes import judge, reset_time
from .claude_tools import result_text, tool_summary
from .ledger import Counts, Ledger, added, counts_of_message, counts_of_model
from .lines import LineParser

MOST_OPEN = 64  # tool calls and nested conversations that are followed at a time
LONG_LINE = 4096  # characters of an unfinished line after which its words are passed on
SHORT = BODY_BYTES // 4  # characters of any kind that stay in one piece
# Of no interest to anyone who reads a session.
QUIET = {"status", "thinking_tokens", "ui_invalidate", "background_tasks_changed", "commands_changed"}
ERROR_KEYS = ("error", "api_error", "api_error_status", "api_error_type", "api_error_params")
RESULT_KEYS = ("is_error", "subtype", "terminal_reason", "errors", "result", *ERROR_KEYS)


class ClaudeParser(LineParser):
    tools: Mapping[str, str] = {}  # Claude Code's names for those of a program that speaks its dialect
    version_key = "claude_code_version"

    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        super().__init__(state, redact)
        known = copied(state)
        self._ledger = Ledger(mapping(known.get("ledger")))
        self._model = text(known.get("model"))
        # place ("" or the tool use that runs a nested conversation) -> the text block under way
        self._blocks: dict[str, dict[str, Any]] = mapping(known.get("blocks"))
        self._tools: dict[str, str] = mapping(known.get("tools"))  # id -> name, of the open calls
        self._limit: dict[str, Any] = mapping(known.get("limit"))
        self._error: dict[str, Any] = mapping(known.get("error"))
        result = known.get("result")
        self._result: dict[str, Any] | None = result if isinstance(result, dict) else None
        self._reported: dict[str, Counts] = mapping(known.get("reported"))  # of the turns that are over

    def state(self) -> dict[str, Any]:
        own = {
            "ledger": self._ledger.state(),
            "model": self._model,
            "blocks": self._blocks,
            "tools": self._tools,
            "limit": self._limit,
            "error": self._error,
            "result": self._result,
            "reported": self._reported,
        }
        return super().state() | copied(own)

    def _message(self, message: dict[str, Any]) -> list[Event]:
        said = message.get("type")
        if said == "assistant":
            return self._assistant(message)
        if said == "user":
            return self._user(message)
        if said == "stream_event":
            return self._stream(message)
        kind = text(said)
        if kind == "system":
            return self._system(message)
        if kind == "rate_limit_event":
            return self._rate_limit(mapping(message.get("rate_limit_info")))
        if kind == "result":
            return self._ended(message)
        if kind == "control_request":
            return self._asked(text(message.get("request_id")), mapping(message.get("request")))
        if kind == "control_cancel_request":
            return [Event("permission_over", {"id": clip(text(message.get("request_id")), 100)[0]})]
        if kind == "control_response":  # it heard an interrupt
            return []
        return [_unknown(kind or "untyped", message)]

    # ---------------------------------------------------------------- the program's own state

    def _system(self, message: dict[str, Any]) -> list[Event]:
        subtype = text(message.get("subtype"))
        if subtype == "init":
            return self._init(message)
        if subtype == "api_retry":
            body = {
                "attempt": number(message.get("attempt")),
                "most": number(message.get("max_retries")),
                "delay_ms": number(message.get("retry_delay_ms")),
                "status": number(message.get("error_status")) or None,
                "error": clip(text(message.get("error")), 100)[0],
            }
            return [Event("retry", body)]
        if subtype == "permission_denied":
            body = {
                "decision": "denied",
                "tool": clip(text(message.get("tool_name")), 100)[0],
                "id": clip(text(message.get("tool_use_id")), 100)[0],
                **clipped(text(message.get("message")), 2000),
            }
            return [Event("permission", body)]
        return [] if subtype in QUIET else [_unknown(subtype or "system", message)]

    def _init(self, message: dict[str, Any]) -> list[Event]:
        self._model = clip(text(message.get("model")), 100)[0]
        if self._started:  # each automatic continuation begins with one more
            return []
        self._started = True
        body = {
            "conversation": clip(text(message.get("session_id")), 100)[0],
            "model": self._model,
            "version": clip(text(message.get(self.version_key)), 50)[0],
            "permission_mode": clip(text(message.get("permissionMode")), 50)[0],
            "tools": bounded(message.get("tools"), 100),
        }
        return [Event("started", body)]

    def _rate_limit(self, info: dict[str, Any]) -> list[Event]:
        windows = mapping(info.get("unifiedWindows"))
        kind = text(info.get("rateLimitType"))
        utilization = mapping(windows.get(kind)).get("utilization")
        known = isinstance(utilization, int | float) and not isinstance(utilization, bool)
        body = {
            "status": clip(text(info.get("status")), 50)[0],
            "limit": clip(kind, 50)[0],
            "resets_at": number(info.get("resetsAt")) or None,
            "utilization": bounded(utilization) if known else None,
        }
        if info.get("isUsingOverage") is True:
            body["overage"] = True  # the limit is reached, and what goes beyond it is paid for: it goes on
        if body == self._limit:  # it comes with every answer
            return []
        self._limit = body
        return [Event("rate_limit", body)]

    # ---------------------------------------------------------------- text as it arrives, and tokens

    def _stream(self, message: dict[str, Any]) -> list[Event]:
        event, place = mapping(message.get("event")), text(message.get("parent_tool_use_id"))
        kind = text(event.get("type"))
        if kind == "message_start":
            inner = mapping(event.get("message"))
            broken_off = self._start_block(place, text(inner.get("id")))
            counts = counts_of_message(inner.get("usage")) | {"output": 0}  # a placeholder until the end
            model = text(inner.get("model")) or self._model
            return broken_off + self._ledger.start(place, text(inner.get("id")), model, counts)
        if kind == "message_delta":
            return self._ledger.grow(place, counts_of_message(event.get("usage")))
        block = self._blocks.get(place)
        if block is None:
            return []
        if kind == "content_block_start":
            block |= {"index": number(event.get("index")), "waiting": "", "sent": 0}
        elif kind == "content_block_delta":
            delta = mapping(event.get("delta"))
            if delta.get("type") == "text_delta":
                block["waiting"] = text(block.get("waiting")) + clean(text(delta.get("text")))
                return self._whole_lines(place, block)
        return []

    def _start_block(self, place: str, request: str) -> list[Event]:
        # What still waits there is of an answer that broke off: it will not be finished.
        events = self._interrupted(place)
        if len(self._blocks) >= MOST_OPEN and place not in self._blocks:
            self._blocks.pop(next(iter(self._blocks)))
        self._blocks[place] = {"request": clip(request, 100)[0], "index": 0, "waiting": "", "sent": 0}
        return events

    def _whole_lines(self, place: str, block: dict[str, Any]) -> list[Event]:
        waiting: str = block["waiting"]
        end = waiting.rfind("\n") + 1
        if not end and len(waiting) > LONG_LINE:
            end = waiting.rfind(" ") + 1 or (len(waiting) if len(waiting) > BODY_BYTES else 0)
        if not end:
            return []
        block["waiting"], block["sent"] = waiting[end:], number(block["sent"]) + end
        return self._texts(waiting[:end], place, block, more=True)

    def _interrupted(self, place: str) -> list[Event]:
        """The last words of an answer that broke off before the end of its block."""
        block = self._blocks.get(place)
        if block is None or not block.get("waiting"):
            return []
        waiting = text(block.get("waiting"))
        block |= {"waiting": "", "sent": 0}
        return self._texts(waiting, place, block, interrupted=True)

    def _texts(self, whole: str, place: str, block: Mapping[str, Any], **marks: bool) -> list[Event]:
        # What is cut into pieces may be cut within a secret: then those who store the pieces cannot see it.
        if self._redact is not None and not (self._unsuspected and len(whole) <= SHORT):
            whole = self._redact(whole.encode("utf-8", "replace")).decode("utf-8", "replace")
        body: dict[str, Any] = {"message": block.get("request", ""), "block": block.get("index", 0)}
        if place:
            body["within"] = word(place)
        body |= marks
        events: list[Event] = []
        while whole:
            piece, _ = clip(whole[:BODY_BYTES])  # at most 16 Ki characters, so the rest is short of them
            events.append(Event("text", body | {"text": piece, "more": True}))
            whole = whole[len(piece) :]
        if events and not marks.get("more"):
            events[-1].body.pop("more")
        return events

    # ---------------------------------------------------------------- whole messages

    def _assistant(self, message: dict[str, Any]) -> list[Event]:
        inner, place = mapping(message.get("message")), text(message.get("parent_tool_use_id"))
        model = text(inner.get("model"))
        if message.get("is_api_error_message") or model == "<synthetic>":
            self._error = bounded({key: message.get(key) for key in ERROR_KEYS})
            said = result_text(inner.get("content"))
            return [
                *self._interrupted(place),
                Event("note", {"note": "provider_error", **clipped(said, 4000)}),
            ]
        events: list[Event] = []
        request, content = word(inner.get("id")), inner.get("content")
        if request and not self._ledger.has_seen(request):  # no pieces were shown: count what is said here
            counts = counts_of_message(inner.get("usage"))
            events = self._ledger.start(place, request, model or self._model, counts)
        for block in content if type(content) is list else [{"type": "text", "text": content}]:
            events += self._block(block if type(block) is dict else {}, place, request)
        return events

    def _block(self, block: dict[str, Any], place: str, request: str) -> list[Event]:
        kind = block.get("type")
        if kind == "text":
            return self._whole_text(clean(text(block.get("text"))), place, request)
        if kind in ("tool_use", "server_tool_use"):
            return [self._tool_start(block, place)]
        if kind == "thinking":
            thought = text(block.get("thinking"))
            return [Event("thinking", {"message": request, **clipped(thought)})] if thought else []
        return [_unknown(text(kind) or "block", block)]

    def _whole_text(self, whole: str, place: str, request: str) -> list[Event]:
        block = self._blocks.get(place)
        if block is None or block.get("request") != request:
            if whole and self._unsuspected and not place and len(whole) <= SHORT:  # most of them
                return [Event("text", {"message": request, "block": 0, "text": whole})]
            return self._texts(whole, place, {"request": request})
        sent, waiting = number(block.get("sent")), text(block.get("waiting"))
        block |= {"waiting": "", "sent": 0}
        if sent and len(whole) != sent + len(waiting):
            # The pieces were another text (a secret was masked in one of the two): say it all again.
            return self._texts(whole, place, block, restated=True)
        return self._texts(whole[sent:], place, block)

    def _tool_start(self, block: dict[str, Any], place: str) -> Event:
        name, call, arguments = word(block.get("name")), word(block.get("id")), mapping(block.get("input"))
        known = self.tools.get(name, name)
        title, details = tool_summary(known, arguments)
        if len(self._tools) >= MOST_OPEN:
            del self._tools[next(iter(self._tools))]
        self._tools[call] = name
        body: dict[str, Any] = {"id": call, "name": name, "title": title, **clipped(details)}
        path = text(arguments.get("file_path")) if known == "Read" else ""
        if path:
            body["reads"] = word(path, 500)
        if place:
            body["within"] = word(place)
        return Event("tool_start", body)

    def _user(self, message: dict[str, Any]) -> list[Event]:
        content = mapping(message.get("message")).get("content")
        if isinstance(content, str):
            return [Event("note", {"note": "continuation", **clipped(content, 4000)})]
        events: list[Event] = []
        for one in content if isinstance(content, list) else []:
            block = mapping(one)
            if block.get("type") == "tool_result":
                events.append(self._tool_end(block, mapping(message.get("tool_use_result"))))
            elif block.get("type") == "text":
                events.append(
                    Event("note", {"note": "continuation", **clipped(text(block.get("text")), 4000)})
                )
        return events

    def _tool_end(self, block: dict[str, Any], details: dict[str, Any]) -> Event:
        call = word(block.get("tool_use_id"))
        body: dict[str, Any] = {
            "id": call,
            "name": self._tools.pop(call, ""),
            "error": bool(block.get("is_error")),
            **clipped(result_text(block.get("content"))),
        }
        if details:
            changed = mapping(details.get("bashEditDiff")).get("changedFiles")
            if not isinstance(changed, list) and details.get("type") in ("create", "update"):
                changed = [details.get("filePath")]
            if isinstance(changed, list) and changed:
                body["files"] = bounded(changed, 300)
        return Event("tool_end", body)

    def _asked(self, request_id: str, request: dict[str, Any]) -> list[Event]:
        """It wants to use a tool and waits for an answer."""
        if request.get("subtype") != "can_use_tool" or not request_id or len(request_id) > 100:
            return [_unknown("control_request", request)]
        tool, arguments = clip(text(request.get("tool_name")), 100)[0], mapping(request.get("input"))
        title, _ = tool_summary(tool, arguments)
        body = {"id": clip(request_id, 100)[0], "tool": tool, "text": title}
        return [Event("permission", body | {"input": asked(arguments)})]

    # ---------------------------------------------------------------- the end

    def _ended(self, message: dict[str, Any]) -> list[Event]:
        self._result = bounded({key: message.get(key) for key in RESULT_KEYS if key in message}, 2000)
        since = mapping(message.get("model_usage_since_last_result"))
        if since or "model_usage_since_last_result" in message:
            totals = {str(model): counts_of_model(one) for model, one in list(since.items())[:MOST_OPEN]}
            totals = self._reported = added(self._reported, totals)
        else:  # older versions: `usage` is this run's in all of them, `modelUsage` is not
            totals = {self._model: counts_of_message(message.get("usage"))} if self._model else {}
        body = {
            "error": bool(message.get("is_error")),
            "subtype": clip(text(message.get("subtype")), 100)[0],
            "turns": number(message.get("num_turns")),
            "duration_ms": number(message.get("duration_ms")),
            # The program's own figures, to compare with ours: the first counts the whole conversation.
            "program_cost_usd": bounded(message.get("total_cost_usd")),
            "program_run_cost_usd": _sum_of_costs(since),
            "denials": len(message["permission_denials"])
            if isinstance(message.get("permission_denials"), list)
            else 0,
            **clipped(text(message.get("result")) or readable(message.get("errors") or ""), 4000),
        }
        settled = self._ledger.settle(totals, clip(text(message.get("uuid")), 60)[0])
        broken_off = [event for place in list(self._blocks) for event in self._interrupted(place)]
        return [*broken_off, *settled, Event("ended", body)]

    def _judged(self) -> Outcome | Literal["success"] | None:
        if self._result is None:
            if "is already in use" in self._stderr:
                said = "The conversation is in use by another run of the program."
                return Outcome(
                    "config", f"{said} A new conversation is needed.", detail="conversation_in_use"
                )
            return None
        rejected = self._limit.get("status") == "rejected"
        resets_at = reset_time(self._error) or (
            number(self._limit.get("resets_at")) or None if rejected else None
        )
        return judge(self._result, self._error, resets_at) or "success"


def _unknown(kind: str, message: dict[str, Any]) -> Event:
    """What this parser does not know, kept small; the whole line is in the runner's log."""
    shown = {key: value for key, value in message.items() if key not in ("type", "uuid", "session_id")}
    body: dict[str, Any] = {
        "note": clip(kind, 100)[0],
        "title": line_of(text(message.get("message")) or kind),
    }
    return Event("note", body | clipped(readable(bounded(shown)), 4000))


def _sum_of_costs(usage: Mapping[str, Any]) -> float | None:
    costs = [mapping(one).get("costUSD") for one in usage.values()]
    known = [one for one in costs if isinstance(one, int | float) and not isinstance(one, bool)]
    total = bounded(float(sum(known))) if known else None
    return total if isinstance(total, float) else None
