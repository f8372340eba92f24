"""What goes over the wires of our clients of agent programs: our lines to the server, the program's messages (JSON-RPC, one a line).

Standard library only: it runs beside the program, where nothing else may be there.
"""

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

CHUNK = 64 * 1024
MOST_MESSAGE = 16 * 1024 * 1024  # bytes of a line of the program's; of a longer one the head is kept
MOST_LINE = 512 * 1024  # bytes of a line of ours; what is longer is made smaller
HEAD = 16 * 1024

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
