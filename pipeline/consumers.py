"""The socket of a page: it subscribes to topics with its cursors and is sent frames.

Client: {"subscribe": topic, "since": number} | {"unsubscribe": topic} | {"ping": anything}. Server: a JSON list of frames.
Close codes: 4401 not logged in (any more), 4400 a message that is none of ours, 4429 too many messages.
"""

from __future__ import annotations

import asyncio
import json
import time
from importlib import import_module
from typing import Any

from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from pipeline.live import topics
from pipeline.live.tail import tail
from pipeline.roles import may

MESSAGE_BYTES = 4096
MESSAGES_PER_SECOND = 20
RECHECK_SECONDS = 30.0


class LiveConsumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self.cursors: dict[str, int] = {}
        self.closing = False
        self.credit, self.credit_at = float(MESSAGES_PER_SECOND), time.monotonic()
        self.watch: asyncio.Task[None] | None = None
        user = self.scope.get("user")
        if user is None or not user.is_authenticated or not user.is_active:
            await (
                self.accept()
            )  # a page is not told why a handshake was refused, and would try again for ever
            await self.close(4401)
            return
        await self.accept()
        self.watch = asyncio.ensure_future(self.keep_checking())

    async def disconnect(self, code: int) -> None:
        if self.watch is not None:
            self.watch.cancel()
        tail.hub_here().drop(self)
        for topic in self.cursors:
            tail.leave(topic)
        self.cursors = {}

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        now = time.monotonic()
        self.credit = min(MESSAGES_PER_SECOND, self.credit + (now - self.credit_at) * MESSAGES_PER_SECOND) - 1
        self.credit_at = now
        if self.credit < 0:
            await self.close(4429)
            return
        message = None
        if text_data is not None and len(text_data) <= MESSAGE_BYTES:
            try:
                message = json.loads(text_data)
            except (ValueError, RecursionError):
                message = None
        if isinstance(message, dict) and isinstance(message.get("subscribe"), str):
            await self.subscribe(message["subscribe"], message.get("since"))
        elif isinstance(message, dict) and isinstance(message.get("unsubscribe"), str):
            self.leave(message["unsubscribe"])
        elif isinstance(message, dict) and "ping" in message:
            await self.send(text_data="[]")
        else:
            await self.close(4400)

    async def subscribe(self, topic: str, since: Any) -> None:
        """Join first, then replay what is after the cursor: nothing is missed, and `write` drops what came twice."""
        if topic in self.cursors or len(self.cursors) >= topics.TOPICS_AT_MOST:
            return
        if not await self.allowed(topic):
            await self.send(
                text_data=json.dumps(
                    [{"topic": topic, "closed": "You may not see this, or it is not there."}]
                )
            )
            return
        hub = tail.hub_here()
        self.cursors[topic] = since if isinstance(since, int) and 0 <= since < 2**62 else 0
        hub.join(topic, self)
        tail.join(topic, self.cursors[topic])
        frame = await self.read(topic, self.cursors[topic])
        if frame:
            hub.send(self, frame)

    async def read(self, topic: str, cursor: int) -> dict[str, Any] | None:
        """What the database says came after the cursor, for who still may see it."""
        frame: dict[str, Any] | None = await database_sync_to_async(topics.frame_after)(topic, cursor)
        if frame and frame.get("access") and not await self.allowed(topic):
            return None  # the same news reaches the hub, which makes this socket look at its rights
        return frame

    def leave(self, topic: str) -> None:
        if self.cursors.pop(topic, None) is not None:
            tail.hub_here().leave(topic, self)
            tail.leave(topic)

    async def write(self, frames: list[dict[str, Any]]) -> None:
        """Called by the hub: one message for all frames of a tick, without what this reader has."""
        out = []
        for frame in frames:
            topic = frame["topic"]
            cursor = self.cursors.get(topic)
            if cursor is None:
                continue
            if frame.get("from", 0) > cursor:  # something lies between: it is read, so that nothing is missed
                found = await self.read(topic, cursor)
                if found is None or topic not in self.cursors:
                    continue
                frame = found
            if frame.get("resync"):
                out.append(frame)
                self.cursors[topic] = max(cursor, frame.get("upto", cursor))
            elif frame["upto"] > cursor:
                if "lines" in frame and frame["from"] < cursor:
                    out.append({**frame, "lines": [line for line in frame["lines"] if line["seq"] > cursor]})
                else:
                    out.append(frame)
                self.cursors[topic] = frame["upto"]
        if out:
            await self.send(text_data=json.dumps(out))

    async def keep_checking(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            await self.recheck()

    async def recheck(self) -> None:
        """Rights are read again: a lost log-in closes the socket, a lost right the topic."""
        if not (await self.current_user()).is_authenticated:
            for topic in list(self.cursors):  # before the close is heard, the next frame may be on its way
                self.leave(topic)
            if not self.closing:  # two pieces of news may make it look twice
                self.closing = True
                await self.close(4401)
            return
        for topic in list(self.cursors):
            if not await self.allowed(topic):
                self.leave(topic)
                await self.send(
                    text_data=json.dumps([{"topic": topic, "closed": "You may no longer see this."}])
                )

    async def current_user(self) -> Any:
        """The log-in as it stands in the database now: a log-out or a new password ends it."""
        store = import_module(settings.SESSION_ENGINE).SessionStore
        scope: Any = {"session": store(self.scope["session"].session_key)}
        return await get_user(scope)

    async def allowed(self, topic: str) -> bool:
        user = await self.current_user()

        def look() -> bool:
            project = topics.project_of(topic)
            return project is not None and may(user, "see", project)

        return bool(await database_sync_to_async(look)())
