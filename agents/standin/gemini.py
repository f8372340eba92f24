"""Google's GenerateContent, as Gemini CLI speaks it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from agents.standin.dialect import Answer, Dialect, Frame, Json, said_of

PATH = re.compile(r"/models/([^/:]+):(streamGenerateContent|generateContent)$")
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


class Gemini(Dialect):
    GARBAGE = "data: {not json\n\n"
    FOLDER = r"\*\*Workspace Directories:\*\*\\n\s*- (/[^\\\"\n]+)"
    SHELL, WRITER = "run_shell_command", "write_file"
    SHELL_MORE = {"description": "scripted"}

    @staticmethod
    def owns(path: str) -> bool:
        return PATH.search(path) is not None

    @property
    def model(self) -> str:
        found = PATH.search(self.path)
        return found[1] if found else "fake"

    @property
    def streamed(self) -> bool:
        return ":streamGenerateContent" in self.path

    def wants_json(self) -> bool:
        return (self.body.get("generationConfig") or {}).get("responseMimeType") == "application/json"

    def tools(self) -> Json:
        offered: list[Json] = []
        for one in self.body.get("tools") or []:
            offered += one.get("functionDeclarations") or []
        return {tool["name"]: tool for tool in offered if tool.get("name")}

    def messages(self) -> list[Json]:
        return list(self.body.get("contents") or [])

    def by_model(self, message: Json) -> bool:
        return message.get("role") == "model"

    def message(self, answer: Answer) -> Json:
        parts: list[Json] = []
        if answer.thinking:
            parts.append({"text": answer.thinking, "thought": True})
        if answer.text:
            parts.append({"text": answer.text})
        return self._object([*parts, *_calls(answer)], answer, _finish(answer))

    def said(self, answer: Answer) -> Iterator[Frame]:
        if answer.thinking:
            yield "", self._object([{"text": answer.thinking, "thought": True}], answer, None)
        if answer.text:
            for piece in answer.pieces(answer.text):
                yield "", self._object([{"text": piece}], answer, None)
        if answer.calls:
            yield "", self._object(_calls(answer), answer, None)

    def failed(self, trouble: Json) -> Iterator[Frame]:
        yield "", self.error_body({"status": 503, **trouble})

    def finished(self, answer: Answer) -> Iterator[Frame]:
        yield "", self._object([{"text": ""}], answer, _finish(answer))

    def _object(self, parts: list[Json], answer: Answer, finish: str | None) -> Json:
        usage = answer.usage
        candidate: Json = {"content": {"role": "model", "parts": parts}, "index": 0}
        return {
            "candidates": [candidate | ({"finishReason": finish} if finish else {})],
            "modelVersion": self.model,
            "responseId": answer.mark,
            "usageMetadata": {
                "promptTokenCount": answer.prompt_tokens,
                "candidatesTokenCount": usage["output"],
                "cachedContentTokenCount": usage["cache_read"],
                "thoughtsTokenCount": usage["thinking"],
                "totalTokenCount": answer.prompt_tokens + usage["output"] + usage["thinking"],
            },
        }

    @staticmethod
    def frame(name: str, data: Json) -> str:
        return f"data: {json.dumps(data)}\n\n"

    @staticmethod
    def error_body(error: Json) -> Json:
        if "body" in error:
            return dict(error["body"])
        status, said = said_of(error)
        retry = {
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": f"{error.get('retry_after', 1)}s",
        }
        details = error.get("details", [retry] if status == 429 else [])
        body = {"code": status, "message": said, "status": STATUSES.get(status, "UNKNOWN")}
        return {"error": body | ({"details": details} if details else {})}


def _finish(answer: Answer) -> str:
    return FINISHES.get(answer.stop or "", answer.stop or "STOP")


def _calls(answer: Answer) -> list[Json]:
    signed = {"thoughtSignature": "ZmFrZQ=="}
    return [
        {"functionCall": {"name": call.name, "args": call.given}, **(signed if place == 0 else {})}
        for place, call in enumerate(answer.calls)
    ]
