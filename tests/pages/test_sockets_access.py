# ruff: noqa: ASYNC110 - the loop is turned by hand, one step at a time
"""What ends a socket or never opens one: other ports, log-outs, changed accounts; and writers that never pause."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings as site
from django.db import connections
from django.test import Client
from pytest_django import Settings

from pipeline.actors import OPERATOR_ON_HOST
from pipeline.live.hub import Hub
from pipeline.services.stories import perform
from tests.pages.conftest import Town, log_line
from tests.pages.sockets import cookie, frames, opened, say, seqs, socket

pytestmark = pytest.mark.usefixtures("no_tail_is_left")


async def test_the_public_address_is_an_origin_behind_a_proxy_that_changes_the_host(
    live_town: Town, settings: Settings
) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://localhost:8443"]
    one = await socket(await sync_to_async(cookie)(live_town, "viewer"), "https://localhost:8443")
    assert (await one.connect(timeout=10))[0] is True
    await one.disconnect()


async def test_a_log_out_ends_the_socket_at_once(live_town: Town) -> None:
    key = await sync_to_async(cookie)(live_town, "viewer")
    one = await socket(key)
    await one.connect(timeout=10)
    await say(one, subscribe=f"project:{live_town.web.pk}", since=0)
    await frames(one, lambda f: f)
    client = Client()
    client.cookies[site.SESSION_COOKIE_NAME] = key
    await sync_to_async(client.post)("/logout/")
    assert await one.receive_output(timeout=10) == {"type": "websocket.close", "code": 4401}
    assert await one.receive_nothing(timeout=0.3)  # the news that made it look are not sent behind the close
    await one.disconnect()


@pytest.mark.parametrize("change", ["password", "switched off"])
async def test_a_changed_account_ends_its_sockets_at_once(live_town: Town, change: str) -> None:
    one, other = await opened(live_town, "viewer"), await opened(live_town, "developer")
    for each in (one, other):
        await say(each, subscribe=f"project:{live_town.web.pk}", since=0)
        await frames(each, lambda f: f)

    def alter() -> None:
        user = live_town.people["viewer"]
        if change == "password":
            user.set_password("another long pass phrase")
        else:
            user.is_active = False
        user.save()

    await sync_to_async(alter)()
    assert await one.receive_output(timeout=10) == {"type": "websocket.close", "code": 4401}
    await sync_to_async(perform)(live_town.story, "archive", actor=OPERATOR_ON_HOST)
    assert await frames(other, lambda f: f)
    await one.disconnect()
    await other.disconnect()


async def test_news_that_comes_while_rights_are_looked_at_waits_for_the_answer() -> None:
    class Watched:
        def __init__(self) -> None:
            self.may, self.looked, self.taken = asyncio.Event(), 0, []  # type: ignore[var-annotated]

        async def write(self, frames: list[dict[str, Any]]) -> None:
            self.taken += frames

        async def recheck(self) -> None:
            self.looked += 1
            await self.may.wait()
            if self.looked == 2:
                hub.leave("t", self)

    hub, one = Hub(0.001), Watched()
    hub.join("t", one)
    hub.deliver({"topic": "t", "upto": 1, "access": True})
    while not one.looked:
        await asyncio.sleep(0)
    hub.deliver({"topic": "t", "upto": 2})
    hub.deliver({"topic": "t", "upto": 3, "access": True})
    await asyncio.sleep(0.02)
    assert one.taken == []
    one.may.set()
    while hub.held:
        await asyncio.sleep(0)
    while one in hub.waiting and (hub.waiting[one].writing or hub.waiting[one].frames):
        await asyncio.sleep(0)
    assert [frame["upto"] for frame in one.taken] == [1] and one.looked == 2
    hub.drop(one)


async def test_readers_that_come_and_go_while_a_writer_never_pauses_miss_nothing(live_town: Town) -> None:
    """Two readers on one topic, one of them reconnecting all the time, 300 lines written by a thread of its own."""
    topic, total = f"process:{live_town.process.key}", 300

    def write() -> None:
        try:
            for n in range(2, total + 1):
                log_line(live_town.process, f"line {n}")
        finally:
            connections.close_all()

    steady, seen, cursor = await opened(live_town, "developer"), [], 0
    await say(steady, subscribe=topic, since=0)
    thread = threading.Thread(target=write)
    thread.start()
    rounds = 0
    while cursor < total:
        one = await opened(live_town, "viewer")
        await say(one, subscribe=topic, since=cursor)
        found = await frames(one, lambda f: f)
        assert not any(frame.get("resync") for frame in found)
        seen += seqs(found)
        cursor = max(frame["upto"] for frame in found)
        rounds += 1
        await one.disconnect()
    await asyncio.to_thread(thread.join, 30)
    assert seen == list(range(1, total + 1)) and rounds > 1
    found = await frames(steady, lambda f: f[-1]["upto"] >= total if f else False)
    assert seqs(found) == list(range(1, total + 1))
    await steady.disconnect()
