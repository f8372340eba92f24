"""A browser's side of a socket."""

from __future__ import annotations

import json
from typing import Any

from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.test import Client

from huskies_site.asgi import application
from tests.pages.conftest import Town

OURS = "http://localhost"


def cookie(town: Town, who: str) -> str:
    client = Client()
    client.force_login(town.people[who])
    return client.cookies[settings.SESSION_COOKIE_NAME].value


async def socket(key: str | None, origin: str | None = OURS) -> WebsocketCommunicator:
    headers = [(b"host", b"localhost")]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    if key is not None:
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode()))
    return WebsocketCommunicator(application, "/live/", headers=headers)


async def opened(town: Town, who: str) -> WebsocketCommunicator:
    one = await socket(await sync_to_async(cookie)(town, who))
    connected, _ = await one.connect(timeout=10)
    assert connected
    return one


async def say(one: WebsocketCommunicator, **message: Any) -> None:
    await one.send_to(text_data=json.dumps(message))


async def frames(one: WebsocketCommunicator, enough: Any) -> list[dict[str, Any]]:
    """All frames until `enough(frames)`; fails after ten seconds without one."""
    found: list[dict[str, Any]] = []
    while not enough(found):
        found += json.loads(await one.receive_from(timeout=10))
    return found


def seqs(found: list[dict[str, Any]]) -> list[int]:
    return [line["seq"] for frame in found for line in frame.get("lines", [])]
