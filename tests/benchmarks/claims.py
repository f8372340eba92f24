"""Claims a second: the pool's claim (limits, fence, session, process, queue row, history, event) against a bare UPDATE ... RETURNING."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from django.core.management import call_command
from django.db import connection
from django_q.models import OrmQ

from agents.models import Session
from agents.services import assigning, pool
from pipeline import conf, datafolder
from pipeline.models import Process, Project, StageChange, Story
from tests import factories
from tests.benchmarks.floors import BareQueue
from tests.benchmarks.measure import Row, judged, percentile, ratio, take_turns
from tests.benchmarks.server import ROOT

EACH = 25
ROWS = "a claim writes seven rows and reads ten times through the ORM; the floor writes one row"
TURNS = "eight writers take turns, and each start is a turn"
WORKERS, PER_WORKER = 8, 20


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
    bare = BareQueue(conf.home() / "huskies.sqlite3", jobs=EACH * (rounds + 1))
    claims = Claims()

    def floor() -> float:
        before = time.monotonic()
        for _ in range(EACH):
            bare.claim()
        return (time.monotonic() - before) / EACH

    found = take_turns({"floor": floor, "claim": claims.claim, "start": claims.start}, rounds)
    rows = [
        ratio(
            "claims", "one worker: claim / bare UPDATE ... RETURNING", found["claim"], found["floor"], 8, ROWS
        ),
        ratio(
            "claims",
            "one worker: whole start (move, claim, history, event) / the same floor",
            found["start"],
            found["floor"],
        ),
    ]
    return rows + race(claims.project)


def race(project: Project) -> list[Row]:
    """Eight processes start stories at once; each has stories of its own, and there are agents for all."""
    for number in range(EACH, WORKERS * PER_WORKER):
        factories.coder(project, number)
    stories = [factories.story(project).pk for _ in range(WORKERS * PER_WORKER)]
    connection.close()
    command = [sys.executable, "-m", "tests.benchmarks", "--racer"]
    racers = [
        subprocess.Popen(
            [*command, json.dumps(stories[n::WORKERS])],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(WORKERS)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = [json.loads(racer.communicate(timeout=120)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    took = [seconds for one in said for seconds in one["took"]]
    spans = [one["seconds"] for one in said]
    doubles = len(took) - Session.objects.live().values("story", "agent").distinct().count()
    worst, share = percentile(took, 99.9) * 1000, min(spans) / max(spans)
    rate = len(took) / max(spans)
    forget()
    return [
        judged(
            "claims",
            f"{WORKERS} processes: {len(took)} starts granted twice or not at all",
            doubles,
            0,
            f"{doubles}",
            "0",
        ),
        Row(
            "claims",
            f"{WORKERS} processes: fastest / slowest process's time",
            f"{share:.2f}",
            ">= 0.7",
            "met" if share >= 0.7 else "missed",
        ),
        judged(
            "claims",
            f"{WORKERS} processes: p99.9 of one start",
            worst,
            50,
            f"{worst:.0f} ms; {rate:.0f} starts a second together",
            "<= 50 ms",
            TURNS,
        ),
    ]


def racer(stories: list[int]) -> None:
    """One of the eight: begins when a line comes, and prints what it took."""
    print("ready", flush=True)
    sys.stdin.readline()
    took = []
    begun = time.monotonic()
    for pk in stories:
        story = Story.objects.select_related("project").get(pk=pk)
        before = time.monotonic()
        started = pool.start_story(story, actor=factories.ALICE)
        took.append(time.monotonic() - before)
        assert started.session is not None, started.queued
    print(json.dumps({"took": took, "seconds": time.monotonic() - begun}), flush=True)
