"""Many starts at once: sixteen with room for all (P2c), and forty with a limit of ten (exact at every instant)."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

from django.db import transaction

from agents.models import Limit, Session
from agents.services import pool
from pipeline import conf
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.models import Capacity, Process, Story
from tests.benchmarks.floors import BareStart
from tests.benchmarks.measure import Row, judged, wait_for
from tests.benchmarks.server import first_output, step_starts
from tests.benchmarks.world import World, served

AT_ONCE, ASKED, LIMIT = 16, 40, 10
LOOK_SECONDS = 0.05
"""Seldom: looking costs what the server needs, and the times stand in the logs and rows."""
ENDS = 'runtime: command, command: ["printf", "a first byte, and no more"]'
"""The smallest agent there is: what its own program needs would not be the server's."""


def measure(rounds: int) -> list[Row]:
    with served(coders=ASKED) as world:
        sixteen = [at_once(world) for _ in range(max(2, rounds // 5))]
        floor = BareStart(conf.home().with_name("floor"))
        serial = [floor.copies(AT_ONCE) for _ in sixteen]
        starts = [sum(floor() for _ in range(AT_ONCE)) for _ in sixteen]
        limited = forty(world)
    failures = sum(one[0] for one in sixteen)
    copies, first_bytes = (statistics.median(one[n] for one in sixteen) for n in (1, 2))
    add, bare = statistics.median(serial), statistics.median(starts)
    what, whole = f"{AT_ONCE} starts at once", f"{first_bytes * 1000:.0f} against {bare * 1000:.0f} ms"
    return [
        judged("burst", f"{what}: failures", failures, 0, f"{failures} of {AT_ONCE * len(sixteen)}", "0"),
        judged(
            "burst", f"{what}: the last copy ready / {AT_ONCE} serial `git worktree add`", copies / add, 1.2,
            f"{copies / add:.2f} x; {copies * 1000:.0f} against {add * 1000:.0f} ms", "<= 1.2 x", "from the first request on",
        ),
        Row("burst", f"{what}: the last first byte / {AT_ONCE} serial bare starts", f"{first_bytes / bare:.2f} x; {whole}"),
        *limited,
    ]  # fmt: skip


def at_once(world: World) -> tuple[int, float, float]:
    """How many failed, seconds until the last copy was ready, and until the last agent's first byte."""
    made = [world.story() for _ in range(AT_ONCE)]
    before = time.monotonic()
    sessions = [world.start(story) for story in made]
    logs = [world.log(session) for session in sessions]
    wait_for(
        lambda: all(first_output(log) or ended(one) for log, one in zip(logs, sessions, strict=True)),
        "sixteen first bytes",
        pause=LOOK_SECONDS,
    )
    found = [(first_output(log), dict(step_starts(log)).get("copy-ready")) for log in logs]
    good = [(record.monotonic_ns / 1e9, copy) for record, copy in found if record and copy]
    world.end(*made)
    return AT_ONCE - len(good), max(copy for _, copy in good) - before, max(byte for byte, _ in good) - before


def ended(session: Session) -> bool:
    session.refresh_from_db()
    return session.state == "ended"


def forty(world: World) -> list[Row]:
    """Forty are asked for at once; an agent that ended without a change is started again, and that counts as a start."""
    with transaction.atomic():
        Capacity.lock()
        Limit.objects.update_or_create(scope="server", subject="", defaults={"most": LIMIT})
    project = world.add("quick", ASKED, ENDS)
    made = [world.story(project=project) for _ in range(ASKED)]
    numbers = [story.pk for story in made]
    earlier = Session.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    before = time.monotonic()
    refused = sum(pool.start_story(story, actor=OPERATOR_ON_HOST).session is None for story in made)
    most = 0

    def all_started() -> bool:
        nonlocal most
        most = max(most, Session.objects.live().count())
        started = Session.objects.filter(story__in=numbers).exclude(started_at=None)
        return started.values("story").distinct().count() == ASKED

    wait_for(all_started, "forty started stories", seconds=120, pause=LOOK_SECONDS)
    seconds = time.monotonic() - before
    started = Session.objects.filter(pk__gt=earlier).exclude(started_at=None).count()
    Limit.objects.filter(scope="server").update(most=1000)
    Story.objects.filter(pk__in=numbers).update(held_for="measured")
    wait_for(partial(quiet, made), "a quiet server", seconds=120, pause=0.1)
    most = max(most, overlap(earlier))
    what = f"{ASKED} starts asked at once, limit {LIMIT}"
    rate = started / seconds
    return [
        judged("burst", f"{what}: most that lived at any instant", abs(most - LIMIT), 0, f"{most}; {refused} were told to wait", f"= {LIMIT}"),
        Row("burst", f"{what}: starts a second", f"{rate:.1f}/s ({started} in {seconds:.1f} s)", ">= 10/s", "met" if rate >= 10 else "missed",
            "each is a copy, a confined agent, the intake of its work and its end"),
    ]  # fmt: skip


def quiet(made: list[Story]) -> bool:
    return (
        not Process.objects.unhandled().exists()
        and not Session.objects.filter(story__in=made).live().exists()
    )


def overlap(after: int) -> int:
    """The most sessions that lived at once by their rows: made in the claim's transaction, ended in the end's."""
    turns: list[tuple[Any, int]] = []
    for made, ended_at in Session.objects.filter(pk__gt=after).values_list("created_at", "ended_at"):
        turns.append((made, 1))
        if ended_at:
            turns.append((ended_at, -1))
    living = most = 0
    for _, step in sorted(turns, key=lambda turn: (turn[0], turn[1])):
        living += step
        most = max(most, living)
    return most
