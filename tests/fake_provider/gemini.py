"""Gemini's GenerateContent protocol, as Gemini CLI speaks it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.fake_provider.answers import Answer, Call, Json, absolute
from tests.fake_provider.script import ScriptError

GARBAGE = "data: {not json\n\n"
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
FINISHES = {"max_tokens": "MAX_TOKENS", "refusal": "SAFETY"}


@dataclass
class Request:
    body: Json
    model: str
    streamed: bool

    def wants_json(self) -> bool:
        return (self.body.get("generationConfig") or {}).get("responseMimeType") == "application/json"

    def tools(self) -> dict[str, Json]:
        offered: list[Json] = []
        for one in self.body.get("tools") or []:
            offered += one.get("functionDeclarations") or []
        return {tool["name"]: tool for tool in offered if tool.get("name")}

    def newest(self) -> str:
        """What came after the model's last answer, as JSON."""
        fresh: list[Json] = []
        for one in reversed(self.body.get("contents") or []):
            if one.get("role") == "model":
                break
            fresh.insert(0, one)
        return json.dumps(fresh, ensure_ascii=False)

    def run(self, command: str) -> Call:
        return Call(self._offered("run_shell_command"), {"command": command, "description": "scripted"})

    def write(self, path: str, content: str) -> Call:
        path = absolute(path, self.working_directory())
        return Call(self._offered("write_file"), {"file_path": path, "content": content})

    def working_directory(self) -> str | None:
        """The last one that the client told its model of, after a resume."""
        text = json.dumps(self.body, ensure_ascii=False)
        found = re.findall(r"\*\*Workspace Directories:\*\*\\n\s*- (/[^\\\"\n]+)", text)
        return str(found[-1]).strip() if found else None

    def _offered(self, tool: str) -> str:
        if tool not in self.tools():
            raise ScriptError(f"the client offers no {tool} tool, only {sorted(self.tools())}")
        return tool


def message(answer: Answer, request: Request, *, whole: bool) -> Json:
    """The whole answer in one object (`whole` has no other meaning in this protocol)."""
    parts: list[Json] = []
    if answer.thinking:
        parts.append({"text": answer.thinking, "thought": True})
    if answer.text:
        parts.append({"text": answer.text})
    return _object([*parts, *_calls(answer)], answer, request, _finish(answer))


def frame(_name: str, data: Json) -> str:
    return f"data: {json.dumps(data)}\n\n"


def events(answer: Answer, request: Request) -> Iterator[tuple[str, Any]]:
    """(name, data); `raw` is sent as it is, at `drop` the connection breaks."""
    if answer.thinking:
        yield "", _object([{"text": answer.thinking, "thought": True}], answer, request, None)
    if answer.text:
        for piece in answer.pieces(answer.text):
            yield "", _object([{"text": piece}], answer, request, None)
    if answer.calls:
        yield "", _object(_calls(answer), answer, request, None)
    if answer.turn.get("malformed"):
        yield "raw", GARBAGE
    if answer.turn.get("drop"):
        yield "drop", None
    if (trouble := answer.turn.get("stream_error")) is not None:
        yield "", error_body({"status": 503, **trouble})
        return
    yield "", _object([{"text": ""}], answer, request, _finish(answer))


def _finish(answer: Answer) -> str:
    return FINISHES.get(answer.stop or "", answer.stop or "STOP")


def _calls(answer: Answer) -> list[Json]:
    signed = {"thoughtSignature": "ZmFrZQ=="}
    return [
        {"functionCall": {"name": call.name, "args": call.given}, **(signed if place == 0 else {})}
        for place, call in enumerate(answer.calls)
    ]


def _object(parts: list[Json], answer: Answer, request: Request, finish: str | None) -> Json:
    usage = answer.usage
    prompt = usage["input"] + usage["cache_read"]
    candidate: Json = {"content": {"role": "model", "parts": parts}, "index": 0}
    return {
        "candidates": [candidate | ({"finishReason": finish} if finish else {})],
        "modelVersion": request.model,
        "responseId": answer.mark,
        "usageMetadata": {
            "promptTokenCount": prompt,
            "candidatesTokenCount": usage["output"],
            "cachedContentTokenCount": usage["cache_read"],
            "thoughtsTokenCount": usage["thinking"],
            "totalTokenCount": prompt + usage["output"] + usage["thinking"],
        },
    }


def error_body(error: Json) -> Json:
    """An HTTP error as the provider words it."""
    if "body" in error:
        return dict(error["body"])
    status = int(error.get("status", 500))
    retry = {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": f"{error.get('retry_after', 1)}s",
    }
    details = error.get("details", [retry] if status == 429 else [])
    said = error.get("message", f"scripted error {status}")
    body = {"code": status, "message": said, "status": STATUSES.get(status, "UNKNOWN")}
    return {"error": body | ({"details": details} if details else {})}
