"""OpenAI's Responses, as Codex speaks it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from agents.standin.dialect import Answer, Call, Dialect, Frame, Json, said_of
from agents.standin.script import ScriptError

CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
SHELLS = ("exec_command", "shell_command", "shell")


class Responses(Dialect):
    GARBAGE = "event: response.output_text.delta\ndata: {not json\n\n"
    FOLDER = r"<cwd>(/[^<]+)</cwd>"

    @staticmethod
    def owns(path: str) -> bool:
        return path.endswith("/responses")

    def wants_json(self) -> bool:
        form = (self.body.get("text") or {}).get("format") or {}
        return form.get("type") in ("json_schema", "json_object")

    def tools(self) -> Json:
        """The newest models are offered theirs within the input, in namespaces."""
        offered = list(self.body.get("tools") or [])
        for item in self.messages():
            if item.get("type") == "additional_tools":
                offered += item.get("tools") or []
        found: Json = {}
        for tool in offered:
            inside = tool.get("tools") or [] if tool.get("type") == "namespace" else [tool]
            for one in inside:
                space = {} if one is tool else {"namespace": tool.get("name")}
                if one.get("name"):
                    found[one["name"]] = one | space
        return found

    def messages(self) -> list[Json]:
        given = self.body.get("input")
        return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []

    def by_model(self, message: Json) -> bool:
        kind = str(message.get("type"))
        return message.get("role") == "assistant" or kind == "reasoning" or kind.endswith("_call")

    def run(self, command: str) -> Call:
        tools = self.tools()
        name = next((one for one in SHELLS if one in tools), None)
        if name is None and tools.get("exec", {}).get("type") == "custom":
            script = f"text(await tools.exec_command({json.dumps({'cmd': command})}));\n"
            return Call("exec", script, custom=True, namespace=tools["exec"].get("namespace"))
        if name is None:
            raise ScriptError(f"the client offers no shell, only {sorted(tools)}")
        known = (tools[name].get("parameters") or {}).get("properties") or {}
        key = "cmd" if "cmd" in known else "command"
        is_list = (known.get(key) or {}).get("type") == "array"
        return Call(name, {key: ["bash", "-lc", command] if is_list else command})

    def write(self, path: str, content: str) -> Call:
        if self.tools().get("apply_patch", {}).get("type") == "custom":
            added = "".join(f"+{line}\n" for line in content.splitlines())
            patch = f"*** Begin Patch\n*** Add File: {path}\n{added}*** End Patch\n"
            return Call("apply_patch", patch, custom=True)
        folder = shlex.quote(str(PurePosixPath(path).parent))
        return self.run(f"mkdir -p {folder} && printf %s {shlex.quote(content)} > {shlex.quote(path)}")

    def message(self, answer: Answer) -> Json:
        return self._response(answer, "incomplete" if answer.stop == "max_tokens" else "completed")

    def _response(self, answer: Answer, status: str) -> Json:
        """The response object: finished, or as it is when the stream begins (`in_progress`)."""
        usage, whole = answer.usage, status != "in_progress"
        counts = {
            "input_tokens": answer.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage["cache_read"]},
            "output_tokens": usage["output"],
            "output_tokens_details": {"reasoning_tokens": usage["thinking"]},
            "total_tokens": answer.prompt_tokens + usage["output"],
        }
        return {
            "id": f"resp_{answer.mark}",
            "object": "response",
            "created_at": 0,
            "status": status,
            "model": self.model,
            "output": _items(answer) if whole else [],
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "tools": [],
            "usage": counts if whole else None,
        }

    def events(self, answer: Answer) -> Iterator[Frame]:
        """Numbered, as this provider's are."""
        number = 0
        for name, data in super().events(answer):
            if name in ("raw", "drop"):
                yield name, data
                continue
            number += 1
            yield name, {"sequence_number": number, **data}

    def said(self, answer: Answer) -> Iterator[Frame]:
        self.opening = self._response(answer, "in_progress")
        yield "response.created", {"response": self.opening}
        yield "response.in_progress", {"response": self.opening}
        for index, item in enumerate(_items(answer)):
            yield from _item_events(answer, item, {"item_id": item["id"], "output_index": index})

    def failed(self, trouble: Json) -> Iterator[Frame]:
        said = {
            "code": trouble.get("code", "server_error"),
            "message": trouble.get("message", "The server had an error"),
        }
        yield "response.failed", {"response": self.opening | {"status": "failed", "error": said}}

    def finished(self, answer: Answer) -> Iterator[Frame]:
        whole = self.message(answer)
        yield f"response.{whole['status']}", {"response": whole}

    @staticmethod
    def error_body(error: Json) -> Json:
        if "body" in error:
            return dict(error["body"])
        status, said = said_of(error)
        return {
            "error": {
                "message": said,
                "type": error.get("type", "server_error" if status >= 500 else "invalid_request_error"),
                "param": None,
                "code": error.get("code", CODES.get(status)),
            }
        }


def _items(answer: Answer) -> list[Json]:
    mark = answer.mark
    items: list[Json] = []
    if answer.thinking:
        summary = [{"type": "summary_text", "text": answer.thinking}]
        items.append({"type": "reasoning", "id": f"rs_{mark}", "encrypted_content": None, "summary": summary})
    if answer.text:
        content = [{"type": "output_text", "text": answer.text, "annotations": []}]
        base = {"type": "message", "id": f"msg_{mark}", "status": "completed", "role": "assistant"}
        items.append(base | {"content": content})
    for place, call in enumerate(answer.calls):
        one: Json = {
            "id": f"fc_{mark}{place:02d}",
            "status": "completed",
            "call_id": f"call_{mark}{place:02d}",
            "name": call.name,
            **({"namespace": call.namespace} if call.namespace else {}),
        }
        if call.custom:
            items.append({"type": "custom_tool_call", **one, "input": str(call.given)})
        else:
            items.append({"type": "function_call", **one, "arguments": json.dumps(call.given)})
    return items


def _item_events(answer: Answer, item: Json, where: Json) -> Iterator[Frame]:
    index = where["output_index"]
    if item["type"] == "message":
        text = item["content"][0]["text"]
        yield "response.output_item.added", {"output_index": index, "item": item | {"content": []}}
        place = where | {"content_index": 0}
        part = {"type": "output_text", "text": "", "annotations": []}
        yield "response.content_part.added", place | {"part": part}
        for piece in answer.pieces(text):
            yield "response.output_text.delta", place | {"delta": piece, "logprobs": []}
        yield "response.output_text.done", place | {"text": text, "logprobs": []}
        yield "response.content_part.done", place | {"part": item["content"][0]}
    elif item["type"] == "reasoning":
        text = item["summary"][0]["text"]
        yield "response.output_item.added", {"output_index": index, "item": item | {"summary": []}}
        place = where | {"summary_index": 0}
        yield "response.reasoning_summary_part.added", place | {"part": {"type": "summary_text", "text": ""}}
        for piece in answer.pieces(text):
            yield "response.reasoning_summary_text.delta", place | {"delta": piece}
        yield "response.reasoning_summary_text.done", place | {"text": text}
        yield "response.reasoning_summary_part.done", place | {"part": item["summary"][0]}
    else:
        key = "input" if item["type"] == "custom_tool_call" else "arguments"
        stem = "custom_tool_call_input" if key == "input" else "function_call_arguments"
        yield "response.output_item.added", {"output_index": index, "item": item | {key: ""}}
        for piece in answer.pieces(item[key]):
            yield f"response.{stem}.delta", where | {"delta": piece}
        yield f"response.{stem}.done", where | {key: item[key]}
    yield "response.output_item.done", {"output_index": index, "item": item}
