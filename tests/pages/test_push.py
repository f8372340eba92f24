"""The sockets: who gets one, that a reader with a cursor misses nothing and gets nothing twice, and what ends a topic."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from pipeline.actors import OPERATOR_ON_HOST
from pipeline.live.hub import BACKLOG, Hub
from pipeline.services.members import set_role
from pipeline.services.stories import perform
from tests.pages.conftest import Town, log_line, log_lines
from tests.pages.sockets import cookie, frames, opened, say, seqs, socket

pytestmark = pytest.mark.usefixtures("no_tail_is_left")


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost.evil.example",
        "file://",
        "",
        None,
        "http://localhost:9999",
    ],
)
async def test_a_foreign_page_gets_no_socket(live_town: Town, origin: str) -> None:
    one = await socket(await sync_to_async(cookie)(live_town, "viewer"), origin)
    assert (await one.connect(timeout=10))[0] is False


@pytest.mark.parametrize("key", [None, "forged"])
async def test_without_a_log_in_the_socket_is_closed_with_the_reason(
    live_town: Town, key: str | None
) -> None:
    """A browser does not tell its page why a handshake was refused, and the page would try again for ever."""
    one = await socket(key)
    await one.connect(timeout=10)
    assert await one.receive_output(timeout=10) == {"type": "websocket.close", "code": 4401}


async def test_a_stranger_hears_nothing_of_the_project(live_town: Town) -> None:
    one = await opened(live_town, "stranger")
    for topic in (
        f"project:{live_town.web.pk}",
        f"process:{live_town.process.key}",
        "project:999",
        "secrets",
    ):
        await say(one, subscribe=topic, since=0)
        (frame,) = json.loads(await one.receive_from(timeout=10))
        assert "closed" in frame and "cards" not in frame
    await one.disconnect()


async def test_a_moved_card_is_pushed_with_its_new_stage(live_town: Town) -> None:
    one = await opened(live_town, "viewer")
    await say(one, subscribe=f"project:{live_town.web.pk}", since=0)
    await frames(one, lambda f: f)
    await sync_to_async(perform)(live_town.story, "archive", actor=OPERATOR_ON_HOST)
    found = await frames(
        one, lambda f: any(card["stage"] == "archived" for each in f for card in each.get("cards", []))
    )
    assert not any(frame.get("resync") for frame in found)
    await one.disconnect()


async def test_across_reconnects_no_line_is_missing_and_none_comes_twice(live_town: Town) -> None:
    topic, written, seen, cursor = f"process:{live_town.process.key}", 1, [], 0
    for _ in range(4):
        one = await opened(live_town, "viewer")
        await say(one, subscribe=topic, since=cursor)
        for n in range(15):
            await sync_to_async(log_line)(live_town.process, f"line {n}")
            written += 1
        goal = written
        found = await frames(one, lambda f, goal=goal: any(frame["upto"] >= goal for frame in f))
        assert not any(frame.get("resync") for frame in found)
        seen += seqs(found)
        cursor = max(frame["upto"] for frame in found)
        await one.disconnect()
        await sync_to_async(log_line)(live_town.process, "while nobody listened")
        written += 1
    assert seen == list(range(1, written))


async def test_who_comes_second_with_an_older_cursor_gets_every_line_too(live_town: Town) -> None:
    topic = f"process:{live_town.process.key}"
    first, second = await opened(live_town, "viewer"), await opened(live_town, "developer")
    await say(first, subscribe=topic, since=0)
    await frames(first, lambda f: seqs(f) == [1])
    writing = asyncio.create_task(sync_to_async(log_lines)(live_town.process, 60))
    await say(second, subscribe=topic, since=0)
    found = await frames(second, lambda f: any(frame["upto"] >= 61 for frame in f))
    await writing
    assert seqs(found) == list(range(1, 62)) and not any(frame.get("resync") for frame in found)
    await first.disconnect()
    await second.disconnect()


async def test_too_far_behind_is_told_to_look_again(live_town: Town) -> None:
    await sync_to_async(log_lines)(live_town.process, 510)
    one = await opened(live_town, "viewer")
    await say(one, subscribe=f"process:{live_town.process.key}", since=1)
    found = await frames(one, lambda f: f)
    assert found[0]["resync"] is True and found[0]["upto"] == 511
    await one.disconnect()


async def test_a_lost_role_closes_the_topic_before_the_next_news(live_town: Town) -> None:
    topic = f"project:{live_town.web.pk}"
    one = await opened(live_town, "viewer")
    await say(one, subscribe=topic, since=0)
    await frames(one, lambda f: f)
    await sync_to_async(set_role)(live_town.web, "viewer", 0, actor=OPERATOR_ON_HOST)
    found = await frames(one, lambda f: any("closed" in frame for frame in f))
    assert not any("cards" in frame for frame in found)
    await sync_to_async(perform)(live_town.story, "archive", actor=OPERATOR_ON_HOST)
    assert await one.receive_nothing(timeout=0.5)
    await one.disconnect()


@pytest.mark.parametrize(
    "text", ["hello", "[]", '{"do": "drop"}', '{"subscribe": 7}', "x" * 5000, "[" * 4000]
)
async def test_a_message_that_is_none_of_ours_closes_the_socket(live_town: Town, text: str) -> None:
    one = await opened(live_town, "viewer")
    await one.send_to(text_data=text)
    assert await one.receive_output(timeout=10) == {"type": "websocket.close", "code": 4400}
    await one.disconnect()


async def test_a_flood_of_messages_closes_the_socket(live_town: Town) -> None:
    one = await opened(live_town, "viewer")
    for _ in range(60):
        await say(one, ping=1)
    out = [await one.receive_output(timeout=10)]
    while out[-1]["type"] != "websocket.close":
        out.append(await one.receive_output(timeout=10))
    assert out[-1]["code"] == 4429
    await one.disconnect()


async def test_a_slow_reader_costs_a_bounded_backlog_and_is_told_to_look_again() -> None:
    class Slow:
        def __init__(self) -> None:
            self.gate, self.taken = asyncio.Event(), []  # type: ignore[var-annotated]

        async def write(self, frames: list[dict[str, Any]]) -> None:
            await self.gate.wait()
            self.taken += frames

        async def recheck(self) -> None: ...

    hub, slow = Hub(0.001), Slow()
    hub.join("t", slow)
    for n in range(BACKLOG * 5):
        hub.deliver({"topic": "t", "from": n, "upto": n + 1})
        await asyncio.sleep(0)
        assert len(hub.waiting[slow].frames) <= BACKLOG
    slow.gate.set()
    while writing := hub.waiting[slow].writing:
        await writing
    hub.waiting[slow].flush()
    last = hub.waiting[slow].writing
    assert last is not None
    await last
    (at,) = [n for n, frame in enumerate(slow.taken) if frame.get("resync")]
    numbers = [frame["upto"] for frame in slow.taken[at:]]
    assert numbers == list(range(numbers[0], BACKLOG * 5 + 1))  # it is told from where it goes on
    hub.drop(slow)
    assert not hub.topics and not hub.waiting
