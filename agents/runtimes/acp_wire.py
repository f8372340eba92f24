"""What goes over the wires of the `acp` runtime's client (acp_agent): our lines to the server, the program's messages, what is in them."""

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

from acp.exceptions import RequestError

CHUNK = 64 * 1024
MOST_MESSAGE = 16 * 1024 * 1024  # bytes of a line of the program's; of a longer one the head is kept
MOST_LINE = 512 * 1024  # bytes of a line of ours; what is longer is made smaller
HEAD = 16 * 1024
# The server itself remembers what is allowed for a session, and means that very call; a program's "always" is often far more.
ALLOW = {"once": ("allow_once",), "session": ("allow_once", "allow_always")}
DENY = ("reject_once", "reject_always")

Json = dict[str, Any]


def emit(kind: str, **fields: Any) -> None:
    line = json.dumps({"type": kind, **fields}).encode()
    if len(line) > MOST_LINE:
        line = json.dumps({"type": kind, **smaller(fields)}).encode()[:MOST_LINE]
    view = memoryview(line + b"\n")
    while view:
        view = view[os.write(1, view) :]


def smaller(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return value if len(value) <= 8192 else value[:8192] + " […]"
    if isinstance(value, dict) and depth < 8:
        return {key[:200]: smaller(one, depth + 1) for key, one in list(value.items())[:16]}
    if isinstance(value, list) and depth < 8:
        return [smaller(one, depth + 1) for one in value[:16]]
    return None if isinstance(value, dict | list) else value


def mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


class Wire:
    """The program's stdin and stdout, as the connection wants them. `took` sees each message first, in their order, and keeps what is done with."""

    def __init__(self, program: asyncio.subprocess.Process, took: Callable[[Json], bool]) -> None:
        assert program.stdin is not None and program.stdout is not None  # noqa: S101
        self.writer, self.reader, self.took = program.stdin, program.stdout, took
        self.waiting = bytearray()
        self.over = 0  # bytes left out of the line that is being read

    async def send(self, message: Json) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")
        await self.writer.drain()

    async def close(self) -> None:
        self.writer.close()

    async def receive(self) -> Json | None:
        while (line := await self._line()) is not None:
            if self.over:
                message = None
            else:
                try:
                    message = json.loads(line)
                except (ValueError, RecursionError):
                    message = None
            if isinstance(message, dict) and sound(message):
                if not self.took(message):
                    return message
            elif line.strip():
                emit("unread", text=line[:HEAD].decode("utf-8", "replace"), cut=self.over + len(line[HEAD:]))
            self.over = 0
        return None

    async def _line(self) -> bytes | None:
        while (end := self.waiting.find(b"\n")) < 0:
            if len(self.waiting) > MOST_MESSAGE:
                self.over += len(self.waiting) - HEAD
                del self.waiting[HEAD:]
            data = await self.reader.read(CHUNK)
            if not data and not self.waiting:
                return None
            self.waiting += data or b"\n"
        line = bytes(self.waiting[:end])
        del self.waiting[: end + 1]
        return line


def sound(message: Json) -> bool:
    """Whether it is of a form that the connection takes; an error that is no object is made one."""
    if not isinstance(message.get("id"), int | str | None) or not isinstance(
        message.get("method"), str | None
    ):
        return False
    if "error" in message and not isinstance(message["error"], dict):
        message["error"] = {"message": str(message["error"])}
    return "method" in message or "id" in message


# ---------------------------------------------------------------- what is in the messages


def words_of(error: RequestError) -> str:
    """What an error of the protocol says; its details are an object, a text or nothing."""
    said, data = str(error), error.data
    if isinstance(data, dict) and isinstance(data.get("details"), str):
        data = data["details"]
    if data not in (None, {}, ""):
        said += ": " + (data if isinstance(data, str) else json.dumps(smaller(data)))
    return said[:4000]


def options_of(state: Json, category: str) -> list[Json]:
    """The settings of this category that one chooses a value for."""
    found = items(state.get("configOptions"))
    return [
        one
        for one in found
        if category in (one.get("category"), one.get("id")) and one.get("type") != "boolean"
    ]


def value_named(offered: list[Json], key: str, wanted: str) -> str:
    """The value that is meant by `wanted`, which may be the name that people see; `wanted` itself where none is: not all are listed."""
    named = [one[key] for one in offered if one.get("name") == wanted and isinstance(one.get(key), str)]
    return str(next(iter(named), wanted)) if all(one.get(key) != wanted for one in offered) else wanted


def option_for(options: list[Json], decision: Json) -> str | None:
    """The id of the option that says so, none that allows more than was meant; None where the program offers none."""
    scope = "session" if decision.get("scope") == "session" else "once"
    for kind in ALLOW[scope] if decision.get("allow") is True else DENY:
        for option in options:
            if option.get("kind") == kind and isinstance(option.get("optionId"), str):
                return str(option["optionId"])
    return None
