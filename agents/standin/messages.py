"""Anthropic's Messages, as Claude Code speaks it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from agents.standin.dialect import Answer, Dialect, Frame, Json, said_of

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


class Messages(Dialect):
    GARBAGE = "event: content_block_delta\ndata: {not json\n\n"
    FOLDER = r"[Ww]orking directory: (/[^\\\"\n]+)"
    SHELL, WRITER = "Bash", "Write"

    @staticmethod
    def owns(path: str) -> bool:
        return path == "/v1/messages"

    def tools(self) -> Json:
        offered = self.body.get("tools") or []
        return {tool["name"]: tool.get("input_schema") or {} for tool in offered if tool.get("name")}

    def messages(self) -> list[Json]:
        return list(self.body.get("messages") or [])

    def by_model(self, message: Json) -> bool:
        return message.get("role") == "assistant"

    def message(self, answer: Answer) -> Json:
        return self._message(answer, whole=True)

    def _message(self, answer: Answer, *, whole: bool) -> Json:
        """The message object: with its content, or as it is when the stream begins."""
        usage = answer.usage
        return {
            "id": f"msg_{answer.mark}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": _content(answer) if whole else [],
            "stop_reason": (answer.stop or ("tool_use" if answer.calls else "end_turn")) if whole else None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": usage["input"],
                "output_tokens": usage["output"] if whole else 1,
                "cache_creation_input_tokens": usage["cache_write"],
                "cache_read_input_tokens": usage["cache_read"],
            },
        }

    def said(self, answer: Answer) -> Iterator[Frame]:
        yield "message_start", {"message": self._message(answer, whole=False)}
        for index, block in enumerate(_content(answer)):
            start, deltas = _block_deltas(answer, block)
            yield "content_block_start", {"index": index, "content_block": start}
            for delta in deltas:
                yield "content_block_delta", {"index": index, "delta": delta}
            yield "content_block_stop", {"index": index}

    def failed(self, trouble: Json) -> Iterator[Frame]:
        kind = trouble.get("type", "overloaded_error")
        yield "error", {"error": {"type": kind, "message": trouble.get("message", "Overloaded")}}

    def finished(self, answer: Answer) -> Iterator[Frame]:
        complete = self.message(answer)
        delta = {"stop_reason": complete["stop_reason"], "stop_sequence": None}
        yield "message_delta", {"delta": delta, "usage": complete["usage"]}
        yield "message_stop", {}

    @staticmethod
    def error_body(error: Json) -> Json:
        status, said = said_of(error)
        kind = error.get("type", ERROR_TYPES.get(status, "api_error"))
        return {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_fake"}


def _content(answer: Answer) -> list[Json]:
    content: list[Json] = []
    if answer.thinking:
        content.append({"type": "thinking", "thinking": answer.thinking, "signature": "fake"})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    for place, call in enumerate(answer.calls):
        made = f"toolu_{answer.mark}{place:02d}"
        content.append({"type": "tool_use", "id": made, "name": call.name, "input": call.given})
    return content


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
