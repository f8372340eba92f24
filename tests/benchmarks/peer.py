"""One of the processes of the case claims (see `tests/racing.py`). Its order: {"verb": "start", "own": id, "stories": ids} or {"verb": "bare"}."""

import json
import sys
import time
from typing import Any

import django

django.setup()

from django.db import transaction  # noqa: E402

from agents.services import pool, sessions  # noqa: E402
from pipeline.exceptions import Refused  # noqa: E402
from pipeline.models import Story  # noqa: E402
from tests import factories  # noqa: E402
from tests.benchmarks.floors import bare_queue  # noqa: E402


def begin() -> float:
    print("ready", flush=True)
    sys.stdin.readline()
    return time.monotonic()


def start(own: int, stories: list[int]) -> dict[str, Any]:
    """Start each, and end each session at once, so that its agent is free again. `took`: seconds of each granted start.

    `own` is started before the race, as a server that runs has started something before.
    """
    one(own, {"granted": [], "took": [], "waits": 0, "errors": []})
    said: dict[str, Any] = {"granted": [], "took": [], "waits": 0, "errors": [], "last": 0.0}
    begun = begin()
    for pk in stories:
        one(pk, said)
        said["last"] = time.monotonic() - begun
    return said


def one(pk: int, said: dict[str, Any]) -> None:
    story = Story.objects.select_related("project").get(pk=pk)
    before = time.monotonic()
    try:
        started = pool.start_story(story, actor=factories.ALICE)
    except Refused:
        return
    except Exception as error:
        said["errors"].append(repr(error))
        return
    if started.session is None:
        said["waits"] += 1
        return
    said["took"].append(time.monotonic() - before)
    said["granted"].append(started.session.pk)
    with transaction.atomic():
        sessions.close(started.session, outcome="done", reason="", saved="")


def bare() -> dict[str, Any]:
    """Take jobs of the floor's table until there are none."""
    queue, taken = bare_queue(), 0
    begun = begin()
    while queue.claim():
        taken += 1
    return {"taken": taken, "last": time.monotonic() - begun, "errors": []}


order = json.loads(sys.argv[1])
print(json.dumps(bare() if order["verb"] == "bare" else start(order["own"], order["stories"])), flush=True)
