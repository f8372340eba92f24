"""OpenAI's Chat Completions, which most servers of open models speak."""

from __future__ import annotations

import json
from collections.abc import Iterator

from agents.standin.dialect import Answer, Call, Frame, Json
from agents.standin.responses import Responses

# The tools of Qwen Code and opencode, and what each calls the path of a file.
SHELLS = ("run_shell_command", "bash")
WRITERS = {"write_file": "file_path", "write": "filePath"}
SHELL_NEEDS = {"description": "scripted", "is_background": False}
FINISHES = {"max_tokens": "length", "refusal": "content_filter"}


class Chat(Responses):
    """Its errors are worded as in Responses, and so are its clients' answers in JSON."""

    GARBAGE = "data: {not json\n\n"
    FOLDER = r"[Ww]orking (?:in the )?directory: (/[^\\\"\n]+)"

    @staticmethod
    def owns(path: str) -> bool:
        return path.endswith("/chat/completions")

    def wants_json(self) -> bool:
        return (self.body.get("response_format") or {}).get("type") in ("json_schema", "json_object")

    def tools(self) -> Json:
        offered = [one.get("function") or {} for one in self.body.get("tools") or []]
        return {tool["name"]: tool for tool in offered if tool.get("name")}

    def messages(self) -> list[Json]:
        return list(self.body.get("messages") or [])

    def by_model(self, message: Json) -> bool:
        return message.get("role") == "assistant"

    def run(self, command: str) -> Call:
        tools = self.tools()
        name = next((one for one in SHELLS if one in tools), None)
        if name is None:
            return super().run(command)
        required = (tools[name].get("parameters") or {}).get("required") or []
        more = {key: value for key, value in SHELL_NEEDS.items() if key in required}
        return Call(name, {"command": command, **more})

    def write(self, path: str, content: str) -> Call:
        tools = self.tools()
        name = next((one for one in WRITERS if one in tools), None)
        if name is None:
            return super().write(path, content)
        return Call(name, {WRITERS[name]: self.absolute(path), "content": content})

    def message(self, answer: Answer) -> Json:
        said: Json = {"role": "assistant", "content": answer.text or None, "refusal": None}
        if answer.calls:
            said["tool_calls"] = _calls(answer)
        choice = {"index": 0, "message": said, "finish_reason": _finish(answer), "logprobs": None}
        return self._object(answer, "chat.completion", [choice], usage=True)

    def events(self, answer: Answer) -> Iterator[Frame]:
        yield from super(Responses, self).events(answer)
        yield "raw", "data: [DONE]\n\n"

    def said(self, answer: Answer) -> Iterator[Frame]:
        yield self._delta(answer, {"role": "assistant", "content": ""})
        if answer.thinking:
            yield self._delta(answer, {"reasoning_content": answer.thinking})
        for piece in answer.pieces(answer.text) if answer.text else []:
            yield self._delta(answer, {"content": piece})
        for place, call in enumerate(_calls(answer)):
            yield self._delta(answer, {"tool_calls": [{"index": place, **call}]})

    def failed(self, trouble: Json) -> Iterator[Frame]:
        yield "", self.error_body({"status": 500, **trouble})

    def finished(self, answer: Answer) -> Iterator[Frame]:
        yield self._delta(answer, {}, _finish(answer))
        yield "", self._object(answer, "chat.completion.chunk", [], usage=True)

    def _delta(self, answer: Answer, delta: Json, finish: str | None = None) -> Frame:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return "", self._object(answer, "chat.completion.chunk", [choice], usage=False)

    def _object(self, answer: Answer, kind: str, choices: list[Json], *, usage: bool) -> Json:
        counts = {
            "prompt_tokens": answer.prompt_tokens,
            "prompt_tokens_details": {"cached_tokens": answer.usage["cache_read"]},
            "completion_tokens": answer.usage["output"],
            "completion_tokens_details": {"reasoning_tokens": answer.usage["thinking"]},
            "total_tokens": answer.prompt_tokens + answer.usage["output"],
        }
        whole: Json = {"id": f"chatcmpl-{answer.mark}", "object": kind, "created": 0, "model": self.model}
        return whole | {"choices": choices, "usage": counts if usage else None}

    @staticmethod
    def frame(name: str, data: Json) -> str:
        return f"data: {json.dumps(data)}\n\n"


def _finish(answer: Answer) -> str:
    return FINISHES.get(answer.stop or "", answer.stop or ("tool_calls" if answer.calls else "stop"))


def _calls(answer: Answer) -> list[Json]:
    return [
        {
            "id": f"call_{answer.mark}{place:02d}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.given)},
        }
        for place, call in enumerate(answer.calls)
    ]
