"""Claims a second: the pool's claim (limits, fence, session, process, queue row, history, event) against a bare UPDATE ... RETURNING."""

from __future__ import annotations

import random
import time
from pathlib import Path

from django.core.management import call_command
from django.db import connection
from django.db.models import Count
from django_q.models import OrmQ

from agents.models import Session
from agents.services import assigning, pool
from pipeline import conf, datafolder
from pipeline.models import Process, Project, StageChange, Story
from tests import factories, racing
from tests.benchmarks.floors import bare_queue
from tests.benchmarks.measure import Row, judged, percentile, ratio, take_turns

EACH = 25
ROWS = "a claim writes seven rows, and up to 16 share the looks at the pool and the commit; the floor commits one row"
TURNS = "writers take turns, and each start is a turn"
PEERS, STORIES = 4, 500
PEER = Path(__file__).with_name("peer.py")


class Claims:
    """A project with as many free coders as a round claims."""

    def __init__(self) -> None:
        self.project = factories.project("claims")
        factories.capacity(10_000)
        for number in range(EACH):
            factories.coder(self.project, number)
        self.stories = [factories.story(self.project) for _ in range(EACH)]

    def start(self) -> float:
        """Seconds for one start: move, claim, announcement."""
        before = time.monotonic()
        for story in self.stories:
            pool.start_story(story, actor=factories.ALICE)
        return self._done(time.monotonic() - before)

    def claim(self) -> float:
        """Seconds for one claim of a story that waits in coding, as the server assigns it."""
        Story.objects.filter(project=self.project).update(**{"stage": "coding"})
        before = time.monotonic()
        assigning.auto_assign()
        return self._done(time.monotonic() - before)

    def _done(self, seconds: float) -> float:
        assert Session.objects.live().count() == EACH
        forget()
        return seconds / EACH


def forget() -> None:
    """Everything as before the claims."""
    Session.objects.all().delete()
    Process.objects.all().delete()
    StageChange.objects.all().delete()
    OrmQ.objects.all().delete()
    Story.objects.update(**{"stage": "backlog", "waiting_for": "", "base": ""})


def measure(rounds: int) -> list[Row]:
    datafolder.prepare(conf.home())
    call_command("migrate", verbosity=0)
    bare = bare_queue(jobs=EACH * (rounds + 1))
    claims = Claims()

    def floor() -> float:
        before = time.monotonic()
        for _ in range(EACH):
            bare.claim()
        return (time.monotonic() - before) / EACH

    found = take_turns({"floor": floor, "claim": claims.claim, "start": claims.start}, rounds)
    bare.close()
    name = case_name()
    return [
        ratio(name, "one worker: claim / bare UPDATE ... RETURNING", found["claim"], found["floor"], 8, ROWS),
        ratio(name, "one worker: whole start (move, claim, history, event) / the same floor", found["start"], found["floor"]),
        *race(claims.project),
    ]  # fmt: skip


def case_name() -> str:
    return f"claims, {'SQLite' if connection.vendor == 'sqlite' else 'PostgreSQL'}"


def race(project: Project) -> list[Row]:
    """Four processes start the same 500 stories, each in an order of its own; the agents are free again at once."""
    name = case_name()
    factories.capacity(10_000)
    stories = [factories.story(project).pk for _ in range(STORIES)]
    draw = random.Random(1)
    own = [factories.story(project).pk for _ in range(PEERS)]
    orders = [{"verb": "start", "own": pk, "stories": draw.sample(stories, STORIES)} for pk in own]
    said = racing.together(PEER, orders, 300)
    granted = [pk for one in said for pk in one["granted"]]
    taken = Session.objects.filter(pk__in=granted).values("story").distinct().count()
    wrong = abs(len(granted) - STORIES) + abs(taken - STORIES) + sum(one["waits"] for one in said)
    bare_queue(jobs=STORIES).close()
    floor = racing.together(PEER, [{"verb": "bare"}] * PEERS, 300)
    rate = len(granted) / max(one["last"] for one in said)
    bare_rate = sum(one["taken"] for one in floor) / max(one["last"] for one in floor)
    shares = [len(one["granted"]) for one in said]
    took = [seconds for one in said for seconds in one["took"]]
    worst = percentile(took, 99.9) * 1000
    sound = integrity()
    forget()
    what = f"{PEERS} processes, {STORIES} stories"
    rates = (
        f"{rate:.0f}/s; bare UPDATE ... RETURNING by as many: {bare_rate:.0f}/s = {bare_rate / rate:.1f} x"
    )
    share = min(shares) / max(shares)
    return [
        judged(name, f"{what}: not granted exactly once, waits", wrong, 0, f"{wrong}; no errors", "0"),
        Row(name, f"{what}: integrity afterwards", sound, "ok", "met" if sound == "ok" else "missed"),
        Row(name, f"{what}: starts (and ends) a second, all together", rates),
        Row(name, f"{what}: slowest process's share of the fastest's", f"{share:.2f}", ">= 0.7", "met" if share >= 0.7 else "missed"),
        judged(
            name, f"{what}: p99.9 of one start", worst, 50, f"{worst:.0f} ms, p50 {percentile(took, 50) * 1000:.1f} ms", "<= 50 ms", TURNS
        ),
    ]  # fmt: skip


def integrity() -> str:
    """What the database says of itself, and the doctor of its rows; "ok" when neither has found anything."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA integrity_check")
            said = str(cursor.fetchone()[0])
            if said != "ok":
                return said
        connection.check_constraints()
    for rows in (Session.objects.live().values("agent"), Session.objects.live().values("story", "role")):
        if rows.annotate(n=Count("pk")).filter(n__gt=1).exists():
            return "two live sessions where one may be"
    return "ok"
