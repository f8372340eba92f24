"""What the providers' dialects have in common: a request, the turn resolved for it, and the answer's order.

A dialect is one file with one subclass of `Dialect`; an object of it is one request. `server` knows them all.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from agents.standin.script import CALL_KEYS, ScriptError, Spec, Turn

Json = dict[str, Any]
OURS = "find_files"  # only the agent of our direct-API runtimes offers it, in every dialect
Frame = tuple[str, Any]  # (name of the event, data); `raw` is sent as it is, at `drop` the connection breaks


@dataclass(frozen=True)
class Call:
    """`custom`: the tool takes text instead of JSON; `namespace`: it is offered in one (both OpenAI's)."""

    name: str
    given: Any
    custom: bool = False
    namespace: str | None = None


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

    @property
    def prompt_tokens(self) -> int:
        """The input as OpenAI and Google count it: with what came from the cache."""
        return int(self.usage["input"] + self.usage["cache_read"])


class Dialect(ABC):
    """One request for a model. Raises ScriptError if the client offers no tool for what the script wants."""

    GARBAGE: ClassVar[
        str
    ]  # what `malformed: true` sends: an event that the client reads, whose data is not JSON
    FOLDER: ClassVar[str]  # finds the directory in which the client tells its model that it works
    SHELL: ClassVar[str] = (
        ""  # the clients' own tools: one that takes {command}, one that takes {file_path, content}
    )
    WRITER: ClassVar[str] = ""
    SHELL_MORE: ClassVar[Json] = {}

    def __init__(self, body: Json, path: str) -> None:
        self.body, self.path = body, path

    # -- the request -----------------------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def owns(path: str) -> bool:
        """Whether requests of this path are for a model in this dialect."""

    @property
    def model(self) -> str:
        return str(self.body.get("model", "fake"))

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))

    def wants_json(self) -> bool:
        return False

    @abstractmethod
    def tools(self) -> Json:
        """The tools that the client offers, by name."""

    @abstractmethod
    def messages(self) -> list[Json]:
        """The conversation so far."""

    @abstractmethod
    def by_model(self, message: Json) -> bool:
        """Whether the model said it."""

    def newest(self) -> str:
        """What came after the model's last answer, as JSON; the client may add messages of its own."""
        fresh: list[Json] = []
        for one in reversed(self.messages()):
            if self.by_model(one):
                break
            fresh.insert(0, one)
        return json.dumps(fresh, ensure_ascii=False)

    def run(self, command: str) -> Call:
        return Call(self.offered(self.SHELL), {"command": command, **self.SHELL_MORE})

    def write(self, path: str, content: str) -> Call:
        return Call(self.offered(self.WRITER), {"file_path": self.absolute(path), "content": content})

    def absolute(self, path: str) -> str:
        folder = self.working_directory()
        return f"{folder.rstrip('/')}/{path}" if folder and not path.startswith("/") else path

    def working_directory(self) -> str | None:
        """The last one named, after a resume."""
        found = re.findall(self.FOLDER, json.dumps(self.body, ensure_ascii=False))
        return str(found[-1]).partition(" (was ")[0].strip() if found else None

    def offered(self, tool: str) -> str:
        if tool not in self.tools():
            raise ScriptError(f"the client offers no {tool} tool, only {sorted(self.tools())}")
        return tool

    def resolve(self, turn: Turn, spec: Spec, mark: str) -> Answer:
        """The script's turn as an answer to this request."""
        specs = list(turn.get("calls", []))
        if any(key in turn for key in ("run", "write", "tool")):
            specs.append({key: turn[key] for key in CALL_KEYS if key in turn})
        counted = {"input": 100, "output": 20, "cache_read": 0, "cache_write": 0, "thinking": 0}
        return Answer(
            text=turn.get("text", ""),
            thinking=turn.get("thinking", ""),
            calls=[self._call(one) for one in specs],
            usage=counted | spec.get("usage", {}) | turn.get("usage", {}),
            stop=turn.get("stop"),
            chunk_size=max(1, int(spec.get("chunk_size", 24))),
            turn=turn,
            mark=mark,
        )

    def _call(self, call: Json) -> Call:
        if "tool" in call:
            return Call(call["tool"], call.get("input", {}))
        ours = OURS in self.tools()
        if "run" in call:
            given = {"command": str(call["run"])}
            return Call(self.offered("run_command"), given) if ours else self.run(given["command"])
        path, content = call["write"]["path"], call["write"]["content"]
        if ours:
            return Call(self.offered("write_file"), {"path": path, "content": content})
        return self.write(path, content)

    # -- the answer ------------------------------------------------------------------------------------------------

    @abstractmethod
    def message(self, answer: Answer) -> Json:
        """The whole answer, for a client that does not stream."""

    @abstractmethod
    def said(self, answer: Answer) -> Iterator[Frame]:
        """The beginning of the stream and everything that is said and called."""

    @abstractmethod
    def failed(self, trouble: Json) -> Iterator[Frame]:
        """The end of a stream that fails."""

    @abstractmethod
    def finished(self, answer: Answer) -> Iterator[Frame]:
        """The end of a stream."""

    def events(self, answer: Answer) -> Iterator[Frame]:
        yield from self.said(answer)
        if answer.turn.get("malformed"):
            yield "raw", self.GARBAGE
        if answer.turn.get("drop"):
            yield "drop", None
        trouble = answer.turn.get("stream_error")
        yield from self.finished(answer) if trouble is None else self.failed(trouble)

    @staticmethod
    def frame(name: str, data: Json) -> str:
        return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"

    @staticmethod
    @abstractmethod
    def error_body(error: Json) -> Json:
        """An HTTP error as the provider words it."""


def said_of(error: Json) -> tuple[int, str]:
    """(status, message) of a script's error."""
    status = int(error.get("status", 500))
    return status, str(error.get("message", f"scripted error {status}"))
