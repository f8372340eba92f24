"""The hub of one web process: who listens to which topic, and one frame per socket and tick. Lives on the event loop's thread.

An idle socket is sent to at once; after that its frames are gathered for one tick. A socket with too much waiting is told to look again
("resync") instead: readers keep a cursor, so nothing is lost (decision 0003).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any, Protocol

BACKLOG = 200
"""Frames that may wait for one socket before it is told to look again."""


class Listener(Protocol):
    """What the hub knows of a socket."""

    async def write(self, frames: list[dict[str, Any]]) -> None: ...
    async def recheck(self) -> None: ...


class Waiting:
    """The frames of one socket that are not sent yet."""

    def __init__(self, listener: Listener, tick: float) -> None:
        self.listener, self.tick = listener, tick
        self.frames: list[dict[str, Any]] = []
        self.last = 0.0
        self.handle: asyncio.TimerHandle | None = None
        self.writing: asyncio.Task[None] | None = None

    def put(self, frame: dict[str, Any]) -> None:
        if len(self.frames) >= BACKLOG:
            newest: dict[str, int] = {}
            for waiting in [*self.frames, frame]:
                newest[waiting["topic"]] = max(newest.get(waiting["topic"], 0), waiting.get("upto", 0))
            self.frames = [
                {"topic": topic, "resync": True, "upto": upto} for topic, upto in sorted(newest.items())
            ]
        else:
            self.frames.append(frame)
        if self.handle is None and self.writing is None:
            wait = max(0.0, self.last + self.tick - time.monotonic())
            self.handle = asyncio.get_running_loop().call_later(wait, self.flush)

    def flush(self) -> None:
        self.handle = None
        frames, self.frames = self.frames, []
        self.last = time.monotonic()
        self.writing = asyncio.ensure_future(self._write(frames))

    async def _write(self, frames: list[dict[str, Any]]) -> None:
        try:
            await self.listener.write(frames)
        finally:
            self.writing = None
            if self.frames and self.handle is None:
                self.handle = asyncio.get_running_loop().call_later(self.tick, self.flush)

    def close(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
        self.frames = []


class Hub:
    def __init__(self, tick: float) -> None:
        self.tick = tick
        self.topics: dict[str, set[Listener]] = defaultdict(set)
        self.waiting: dict[Listener, Waiting] = {}
        self.held: dict[Listener, list[dict[str, Any]]] = {}
        self.looking: set[asyncio.Task[None]] = set()
        self.checking: set[asyncio.Task[None]] = set()

    def join(self, topic: str, listener: Listener) -> None:
        self.topics[topic].add(listener)

    def leave(self, topic: str, listener: Listener) -> None:
        self.topics[topic].discard(listener)
        if not self.topics[topic]:
            del self.topics[topic]

    def drop(self, listener: Listener) -> None:
        """A socket is gone."""
        for topic in [topic for topic, those in self.topics.items() if listener in those]:
            self.leave(topic, listener)
        gone = self.waiting.pop(listener, None)
        if gone is not None:
            gone.close()

    def send(self, listener: Listener, frame: dict[str, Any]) -> None:
        if listener not in self.waiting:
            self.waiting[listener] = Waiting(listener, self.tick)
        self.waiting[listener].put(frame)

    def deliver(self, frame: dict[str, Any]) -> None:
        """One frame of a topic to all that listen. After a change of access they look at their rights first, and what comes meanwhile waits."""
        for listener in list(self.topics.get(frame["topic"], ())):
            if listener in self.held:
                self.held[listener].append(frame)
            elif frame.get("access"):
                self.held[listener] = [frame]
                self._start_recheck(listener)
            else:
                self.send(listener, frame)

    def _start_recheck(self, listener: Listener) -> None:
        looking = asyncio.ensure_future(self._recheck(listener))
        self.looking.add(looking)  # the loop itself keeps no task alive
        looking.add_done_callback(self.looking.discard)

    async def _recheck(self, listener: Listener) -> None:
        try:
            while True:
                frames, self.held[listener] = self.held[listener], []
                await listener.recheck()
                for frame in frames:
                    if listener in self.topics.get(frame["topic"], ()):
                        self.send(listener, frame)
                if not self.held[listener]:
                    return
        finally:
            del self.held[listener]
