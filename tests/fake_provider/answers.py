"""A turn of a script resolved for one request, in whichever protocol the client speaks."""

from dataclasses import dataclass
from typing import Any, Protocol

from tests.fake_provider.script import CALL_KEYS, Spec, Turn

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """`custom`: the tool takes text instead of JSON; `namespace`: it is offered in one (both OpenAI's)."""

    name: str
    given: Any
    custom: bool = False
    namespace: str | None = None


class Request(Protocol):
    """One model request; `run` and `write` find the client's own tool, and raise ScriptError if it has none."""

    @property
    def model(self) -> str: ...
    @property
    def streamed(self) -> bool: ...
    def tools(self) -> Json: ...
    def wants_json(self) -> bool: ...
    def newest(self) -> str: ...
    def run(self, command: str) -> Call: ...
    def write(self, path: str, content: str) -> Call: ...


@dataclass
class Answer:
    """What is said, called and counted."""

    text: str
    thinking: str
    calls: list[Call]
    usage: Json
    stop: str | None
    chunk_size: int
    turn: Turn
    mark: str  # unique over servers too, so that a resumed conversation never sees an id twice

    def pieces(self, text: str) -> list[str]:
        return [text[at : at + self.chunk_size] for at in range(0, len(text), self.chunk_size)] or [""]


def resolve(turn: Turn, request: Request, spec: Spec, mark: str) -> Answer:
    """Turn a script's turn into an answer; raises ScriptError if the client lacks the tool."""
    specs = list(turn.get("calls", []))
    if any(key in turn for key in ("run", "write", "tool")):
        specs.append({key: turn[key] for key in CALL_KEYS if key in turn})
    counted = {"input": 100, "output": 20, "cache_read": 0, "cache_write": 0, "thinking": 0}
    return Answer(
        text=turn.get("text", ""),
        thinking=turn.get("thinking", ""),
        calls=[_call(one, request) for one in specs],
        usage=counted | spec.get("usage", {}) | turn.get("usage", {}),
        stop=turn.get("stop"),
        chunk_size=max(1, int(spec.get("chunk_size", 24))),
        turn=turn,
        mark=mark,
    )


def _call(call: Json, request: Request) -> Call:
    if "tool" in call:
        return Call(call["tool"], call.get("input", {}))
    if "run" in call:
        return request.run(str(call["run"]))
    return request.write(call["write"]["path"], call["write"]["content"])


def absolute(path: str, folder: str | None) -> str:
    return path if path.startswith("/") or not folder else f"{folder.rstrip('/')}/{path}"
