"""OpenAI's Responses protocol, as Codex speaks it."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tests.fake_provider.answers import Answer, Call, Json
from tests.fake_provider.script import ScriptError

GARBAGE = "event: response.output_text.delta\ndata: {not json\n\n"
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
SHELLS = ("exec_command", "shell_command", "shell")


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
        form = (self.body.get("text") or {}).get("format") or {}
        return form.get("type") in ("json_schema", "json_object")

    def tools(self) -> dict[str, Json]:
        """The tools by name; the newest models are offered theirs within the input, in namespaces."""
        offered = list(self.body.get("tools") or [])
        for item in self._input():
            if item.get("type") == "additional_tools":
                offered += item.get("tools") or []
        found: dict[str, Json] = {}
        for tool in offered:
            inside = tool.get("tools") or [] if tool.get("type") == "namespace" else [tool]
            for one in inside:
                space = {} if one is tool else {"namespace": tool.get("name")}
                if one.get("name"):
                    found[one["name"]] = one | space
        return found

    def newest(self) -> str:
        """What came after the model's last answer, as JSON."""
        fresh: list[Json] = []
        for one in reversed(self._input()):
            kind = str(one.get("type"))
            if one.get("role") == "assistant" or kind == "reasoning" or kind.endswith("_call"):
                break
            fresh.insert(0, one)
        return json.dumps(fresh, ensure_ascii=False)

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
            return Call(
                "apply_patch",
                f"*** Begin Patch\n*** Add File: {path}\n{added}*** End Patch\n",
                custom=True,
            )
        folder = shlex.quote(str(PurePosixPath(path).parent))
        return self.run(f"mkdir -p {folder} && printf %s {shlex.quote(content)} > {shlex.quote(path)}")

    def working_directory(self) -> str | None:
        found = re.findall(r"<cwd>(/[^<]+)</cwd>", json.dumps(self.body, ensure_ascii=False))
        return str(found[-1]) if found else None

    def _input(self) -> list[Json]:
        given = self.body.get("input")
        return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def message(answer: Answer, request: Request, *, whole: bool, status: str = "completed") -> Json:
    """The response object: finished, or as it is when the stream begins."""
    usage = answer.usage
    prompt = usage["input"] + usage["cache_read"]
    counts = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": usage["cache_read"]},
        "output_tokens": usage["output"],
        "output_tokens_details": {"reasoning_tokens": usage["thinking"]},
        "total_tokens": prompt + usage["output"],
    }
    return {
        "id": f"resp_{answer.mark}",
        "object": "response",
        "created_at": 0,
        "status": status if whole else "in_progress",
        "model": request.model,
        "output": _items(answer) if whole else [],
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "tools": [],
        "usage": counts if whole else None,
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


def frame(name: str, data: Json) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"


def events(answer: Answer, request: Request) -> Iterator[tuple[str, Any]]:
    """(event name, data); `raw` is sent as it is, at `drop` the connection breaks."""
    number = 0
    for name, data in _events(answer, request):
        if name in ("raw", "drop"):
            yield name, data
            continue
        number += 1
        yield name, {"sequence_number": number, **data}


def _events(answer: Answer, request: Request) -> Iterator[tuple[str, Any]]:
    opening = message(answer, request, whole=False)
    yield "response.created", {"response": opening}
    yield "response.in_progress", {"response": opening}
    for index, item in enumerate(_items(answer)):
        yield from _item_events(answer, item, {"item_id": item["id"], "output_index": index})
    if answer.turn.get("malformed"):
        yield "raw", GARBAGE
    if answer.turn.get("drop"):
        yield "drop", None
    if (trouble := answer.turn.get("stream_error")) is not None:
        said = {
            "code": trouble.get("code", "server_error"),
            "message": trouble.get("message", "The server had an error"),
        }
        yield "response.failed", {"response": opening | {"status": "failed", "error": said}}
        return
    status = "incomplete" if answer.stop == "max_tokens" else "completed"
    yield f"response.{status}", {"response": message(answer, request, whole=True, status=status)}


def _item_events(answer: Answer, item: Json, where: Json) -> Iterator[tuple[str, Any]]:
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


def error_body(error: Json) -> Json:
    """An HTTP error as the provider words it."""
    if "body" in error:
        return dict(error["body"])
    status = int(error.get("status", 500))
    return {
        "error": {
            "message": error.get("message", f"scripted error {status}"),
            "type": error.get("type", "server_error" if status >= 500 else "invalid_request_error"),
            "param": None,
            "code": error.get("code", CODES.get(status)),
        }
    }
