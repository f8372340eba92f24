"""What our clients of agent programs have in common: what they are told, turn after turn, and the program's begin and end.

A client's stdin brings one JSON object per line. The first is the request: {"prompt", "ask", "permission_seconds", ...}. Then, at
any time: {"type": "message", "text"}, {"type": "interrupt"}, and {"type": "answer", "id", "allow", "scope", "reason"}. When a
turn is over and nothing waits, it waits for another message, until stdin ends.

Its stdout is lines of its own; of every client: started, turn_start, update (the program's own, as it is), allowed, permission,
permission_over, waiting, turn_over, turn_end, note, unread (what the program printed that is no message) and failed; see
`client_stream`.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.runtimes.client_asking import Asking
    from agents.runtimes.client_wire import Json, emit, mapping
else:  # beside the client, which is run as a file
    from client_asking import Asking
    from client_wire import Json, emit, mapping

MOST_SAID = 64 * 1024 * 1024  # bytes of a line that we are told
KILL_SECONDS = 1.0
DRAIN_BYTES = 64 * 1024


class Failed(Exception):
    """The conversation cannot go on; `at` is what was tried, `code` the program's own for the error."""

    def __init__(self, at: str, said: str, code: object = None) -> None:
        super().__init__(said)
        self.at, self.said, self.code = at, said, code


class Client(ABC):
    def __init__(self, request: Json) -> None:
        self.request = request
        self.doing = "start"  # what is tried, for whoever must say that it hung
        self.busy = True  # there is a turn to interrupt, or one to come
        self.cancelled = False
        self.messages: deque[str] = deque()
        self.news = asyncio.Event()
        self.over = False  # nobody says anything any more
        self.asking = Asking(request["ask"] is True, float(request["permission_seconds"]), self.hear)

    @abstractmethod
    async def run(self) -> None:
        """The whole conversation; raises `Failed`."""

    @abstractmethod
    async def open(self) -> None:
        """Up to a conversation that takes a prompt; raises `Failed`."""

    @abstractmethod
    async def turn(self, text: str) -> Json:
        """One prompt; returns how its turn ended, for the line that tells it. Raises `Failed`."""

    # what we are told

    def hear(self, text: str) -> None:
        """Words for the program: another turn, unless it takes them before."""
        self.messages.append(text)
        self.news.set()

    def told(self, line: bytes) -> None:
        try:
            value = mapping(json.loads(line))
        except (ValueError, RecursionError):
            value = {}
        kind = value.get("type")
        if kind == "message" and isinstance(value.get("text"), str):
            self.hear(value["text"])
        elif kind == "interrupt" and self.busy:
            self.cancelled = True
            self.asking.withdraw()
            self.news.set()
        elif kind == "answer":
            self.asking.answer(value)

    async def listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.told(line)
        self.over = True
        self.asking.end()
        self.news.set()

    async def until_cancelled(self) -> None:
        while not self.cancelled:
            self.news.clear()
            await self.news.wait()

    # from the begin to the end

    async def converse(self, program: asyncio.subprocess.Process) -> None:
        """With a program that was begun: it must be open within `patience`. Raises `Failed`, with the end of one that is gone."""
        patience = float(self.request["patience"])
        try:
            try:
                async with asyncio.timeout(patience):
                    await self.open()
            except TimeoutError:
                raise Failed("silent", f"{self.doing} for {patience:.0f} seconds") from None
            await self.talk()
        except Failed as failed:
            if failed.at == "exit":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(program.wait(), 2.0)
                failed.code = program.returncode
            raise

    async def talk(self) -> None:
        """Until nobody has anything to say."""
        text: str | None = self.request["prompt"]
        while text is not None:
            ended = await self.turn(text)
            self.asking.withdraw()
            self.busy = self.cancelled = False
            # The second ends what we are told, unless somebody has spoken: then another turn follows.
            emit("turn_over" if self.messages else "turn_end", **ended)
            while not self.messages and not self.over:
                self.news.clear()
                await self.news.wait()
            text = self.messages.popleft() if self.messages else None


async def begun(argv: list[str], environment: dict[str, str]) -> asyncio.subprocess.Process:
    """The program, in a process group of its own; its stderr is ours."""
    pipe = asyncio.subprocess.PIPE
    try:
        return await asyncio.create_subprocess_exec(
            *argv, stdin=pipe, stdout=pipe, env=environment, start_new_session=True
        )
    except OSError as problem:
        raise Failed("start", f"{argv[0]}: {problem.strerror}") from None


async def end(program: asyncio.subprocess.Process, grace: float) -> None:
    """Until it is dead, its stdin being closed: by itself in `grace` seconds, or by signals."""
    listening = asyncio.create_task(drained(program))
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(program.wait(), grace)
            break
        grace = KILL_SECONDS
    await asyncio.wait([listening], timeout=KILL_SECONDS)
    listening.cancel()


async def drained(program: asyncio.subprocess.Process) -> None:
    """What it still says: some do not end while nobody listens."""
    while program.stdout is not None and await program.stdout.read(DRAIN_BYTES):
        pass


async def main(client_of: Callable[[Json], Client]) -> int:
    reader = asyncio.StreamReader(limit=MOST_SAID)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    client = client_of(json.loads(await reader.readline()))
    listening = asyncio.create_task(client.listen(reader))
    try:
        await client.run()
    except Failed as failed:
        emit("failed", at=failed.at, said=failed.said, code=failed.code)
        return 1
    finally:
        listening.cancel()
    return 0
