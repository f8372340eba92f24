"""The tail of one web process: a thread that is woken by the database and hands the hub what is new in the topics that someone listens to.

It starts with the first socket and ends with the last (Daphne has no lifespan). SQLite: `PRAGMA data_version` each tick (5 us a look).
PostgreSQL: LISTEN, on a connection of its own. A look each second finds what a lost nudge would have told.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

from django.conf import settings
from django.db import close_old_connections, connection

from pipeline.events import CHANNEL
from pipeline.live import topics
from pipeline.live.hub import Hub

logger = logging.getLogger("huskies.live")
LOOK_SECONDS = 1.0


class Tail:
    def __init__(self) -> None:
        self.hub: Hub | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.lock = threading.Lock()
        self.cursors: dict[str, int] = {}
        self.listeners: dict[str, int] = {}
        self.thread: threading.Thread | None = None

    def hub_here(self) -> Hub:
        """The hub of the running loop; a new loop (tests) gets a new one."""
        loop = asyncio.get_running_loop()
        if self.hub is None or self.loop is not loop:
            self.hub, self.loop = Hub(settings.HUSKIES_PUSH_MS / 1000), loop
            with self.lock:
                self.cursors, self.listeners = {}, {}
        return self.hub

    def join(self, topic: str, since: int) -> None:
        """Someone listens; called before the replay, so that nothing falls between the two."""
        with self.lock:
            self.listeners[topic] = self.listeners.get(topic, 0) + 1
            if topic not in self.cursors:
                self.cursors[topic] = since
            if self.thread is None or not self.thread.is_alive():
                self.thread = threading.Thread(target=self.run, name="huskies-tail", daemon=True)
                self.thread.start()

    def leave(self, topic: str) -> None:
        with self.lock:
            left = self.listeners.get(topic, 0) - 1
            if left > 0:
                self.listeners[topic] = left
            else:
                self.listeners.pop(topic, None)
                self.cursors.pop(topic, None)

    def run(self) -> None:
        try:
            waiter = Waiter()
            while True:
                with self.lock:
                    wanted = dict(self.cursors)
                    if not wanted:
                        self.thread = None
                        return
                try:
                    for topic, cursor in wanted.items():
                        self.look(topic, cursor)
                    waiter.wait()
                except Exception:
                    logger.exception("The live push could not read the database; it tries again in a second.")
                    close_old_connections()
                    connection.close()
                    waiter = Waiter()
                    time.sleep(1)
        finally:
            connection.close()

    def look(self, topic: str, cursor: int) -> None:
        frame = topics.frame_after(topic, cursor)
        with self.lock:
            if topic not in self.cursors:
                return
            self.cursors[topic] = frame["upto"] if frame else cursor
        hub, loop = self.hub, self.loop
        if frame and hub is not None and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(hub.deliver, frame)


class Waiter:
    """Waits until another connection may have committed; at most LOOK_SECONDS."""

    def __init__(self) -> None:
        self.seen: Any = None
        self.tick = settings.HUSKIES_TICK_MS / 1000
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
        else:
            self.seen = self.version()

    def version(self) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA data_version")
            return cursor.fetchone()[0]

    def wait(self) -> None:
        if connection.vendor == "postgresql":
            raw: Any = connection.connection
            for _ in raw.notifies(timeout=LOOK_SECONDS, stop_after=1):
                return
            return
        until = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < until:
            now = self.version()
            if now != self.seen:
                self.seen = now
                return
            time.sleep(self.tick)


tail = Tail()
