"""Anthropic's Messages protocol: what a request offers, and a turn as the provider would answer it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.fake_provider.answers import Answer, Call, Json, absolute
from tests.fake_provider.script import ScriptError

# What `malformed: true` sends: an event that the client reads, whose data is not JSON.
GARBAGE = "event: content_block_delta\ndata: {not json\n\n"
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass
class Request:
    body: Json

    @property
    def model(self) -> str:
        return str(self.body.get("model", "fake"))

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))

    def wants_json(self) -> bool:
        return False

    def tools(self) -> dict[str, Json]:
        """The schemas of the tools that the client offers, by name."""
        offered = self.body.get("tools") or []
        return {tool["name"]: tool.get("input_schema") or {} for tool in offered if tool.get("name")}

    def newest(self) -> str:
        """What came after the model's last answer, as JSON; the client may add messages of its own."""
        fresh: list[Json] = []
        for one in reversed(self.body.get("messages") or []):
            if one.get("role") == "assistant":
                break
            fresh.insert(0, one)
        return json.dumps(fresh, ensure_ascii=False)

    def working_directory(self) -> str | None:
        """The directory that the client tells its model it works in; the last one named, after a resume."""
        text = json.dumps(self.body, ensure_ascii=False)
        found = re.findall(r"[Ww]orking directory: (/[^\\\"\n]+)", text)
        return str(found[-1]).partition(" (was ")[0].strip() if found else None

    def run(self, command: str) -> Call:
        return Call(self._offered("Bash"), {"command": command})

    def write(self, path: str, content: str) -> Call:
        path = absolute(path, self.working_directory())
        return Call(self._offered("Write"), {"file_path": path, "content": content})

    def _offered(self, tool: str) -> str:
        if tool not in self.tools():
            raise ScriptError(f"the client offers no {tool} tool, only {sorted(self.tools())}")
        return tool


def message(answer: Answer, request: Request, *, whole: bool) -> Json:
    """The message object: with its content, or as it is when the stream begins."""
    content: list[Json] = []
    if answer.thinking:
        content.append({"type": "thinking", "thinking": answer.thinking, "signature": "fake"})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    for place, call in enumerate(answer.calls):
        made = f"toolu_{answer.mark}{place:02d}"
        content.append({"type": "tool_use", "id": made, "name": call.name, "input": call.given})
    usage = answer.usage
    return {
        "id": f"msg_{answer.mark}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content if whole else [],
        "stop_reason": (answer.stop or ("tool_use" if answer.calls else "end_turn")) if whole else None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage["input"],
            "output_tokens": usage["output"] if whole else 1,
            "cache_creation_input_tokens": usage["cache_write"],
            "cache_read_input_tokens": usage["cache_read"],
        },
    }


def frame(name: str, data: Json) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"


def events(answer: Answer, request: Request) -> Iterator[tuple[str, Any]]:
    """(event name, data); `raw` is sent as it is, at `drop` the connection breaks."""
    yield "message_start", {"message": message(answer, request, whole=False)}
    complete = message(answer, request, whole=True)
    for index, block in enumerate(complete["content"]):
        start, deltas = _block_deltas(answer, block)
        yield "content_block_start", {"index": index, "content_block": start}
        for delta in deltas:
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    if answer.turn.get("malformed"):
        yield "raw", GARBAGE
    if answer.turn.get("drop"):
        yield "drop", None
    if (trouble := answer.turn.get("stream_error")) is not None:
        kind = trouble.get("type", "overloaded_error")
        yield "error", {"error": {"type": kind, "message": trouble.get("message", "Overloaded")}}
        return
    delta = {"stop_reason": complete["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": delta, "usage": complete["usage"]}
    yield "message_stop", {}


def _block_deltas(answer: Answer, block: Json) -> tuple[Json, list[Json]]:
    if block["type"] == "text":
        pieces = answer.pieces(block["text"])
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]
    if block["type"] == "thinking":
        pieces = answer.pieces(block["thinking"])
        deltas: list[Json] = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
        deltas.append({"type": "signature_delta", "signature": "fake"})
        return {"type": "thinking", "thinking": "", "signature": ""}, deltas
    pieces = answer.pieces(json.dumps(block["input"]))
    return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def error_body(error: Json) -> Json:
    """An HTTP error as the provider words it."""
    status = int(error.get("status", 500))
    kind = error.get("type", ERROR_TYPES.get(status, "api_error"))
    said = error.get("message", f"scripted error {status}")
    return {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_fake"}
