"""From a person's press on *start* to the agent's first byte, against the bare form: claim, `git worktree add`, the same program."""

from __future__ import annotations

import itertools
import time

from django.conf import settings
from django.urls import reverse

from agents.models import Session
from agents.services import pool
from pipeline import conf
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.processes import confine, starting
from pipeline.services import processes
from tests.benchmarks.floors import BareStart
from tests.benchmarks.measure import Row, Sample, milliseconds, ratio, take_turns, wait_for
from tests.benchmarks.server import first_output, step_starts
from tests.benchmarks.world import World, served


class Starts:
    """One start each, whole or from the worker's pick-up, and where its time went."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.parts: dict[str, list[float]] = {}

    def whole(self) -> float:
        story = self.world.story()
        path = reverse("story-start", args=[story.project.name, story.number])
        before = time.monotonic()
        self.world.person.post(path)
        answered = time.monotonic()
        session = Session.objects.get(story=story)
        seconds = self._first_byte(session, before)
        self._note("request answered", answered - before)
        self._note("request to the runner's first step", step_starts(self.world.log(session))[0][1] - before)
        self.world.end(story)
        return seconds

    def from_pick_up(self) -> float:
        """The worker's task, in this process: the settings keep the queue from launching it first."""
        story = self.world.story()
        settings.HUSKIES_NO_QUEUE = True
        try:
            session = pool.start_story(story, actor=OPERATOR_ON_HOST).session
        finally:
            settings.HUSKIES_NO_QUEUE = False
        assert session is not None and session.process is not None
        before = time.monotonic()
        processes.launch(session.process.pk)
        seconds = self._first_byte(session, before)
        steps = [("pick-up", before), *step_starts(self.world.log(session)), ("first byte", before + seconds)]
        for (name, at), (_, then) in itertools.pairwise(steps):
            self._note(
                f"step {name}" if name != "pick-up" else "pick-up to the runner's first step", then - at
            )
        self.world.end(story)
        return seconds

    def _first_byte(self, session: Session, before: float) -> float:
        log = self.world.log(session)
        wait_for(lambda: first_output(log), f"the first byte of session {session.pk}", pause=0.02)
        record = first_output(log)
        assert record is not None
        return record.monotonic_ns / 1e9 - before

    def _note(self, what: str, seconds: float) -> None:
        self.parts.setdefault(what, []).append(seconds)


def measure(rounds: int) -> list[Row]:
    level = confine.level_available()
    starting.fork_server.start()  # as in a worker
    prefix: list[str] = []
    with served(coders=2) as world:
        starts = Starts(world)
        floor = BareStart(conf.home().with_name("floor"))
        cases: dict[str, Sample] = {"floor": floor, "whole": starts.whole, "pick-up": starts.from_pick_up}
        if level.name == "bubblewrap":
            place = conf.home().with_name("confined-floor")
            prefix = confine.confined(
                [], level="bubblewrap", writable=[place], readable=[], hidden=conf.hidden(), network=True, cwd=place
            )  # fmt: skip
            cases["confined floor"] = BareStart(place, prefix)
        found = take_turns(cases, rounds)
    name = f"start, {level.name if level.name != 'none' else 'without confinement'}"
    rows = [
        ratio(
            name,
            "from the worker's pick-up to the first byte / bare floor",
            found["pick-up"],
            found["floor"],
            1.5,
        ),
        ratio(name, "request to the first byte / bare floor", found["whole"], found["floor"], 4),
    ]
    if prefix:
        rows.append(
            ratio(
                name,
                "pick-up / floor whose program is confined too",
                found["pick-up"],
                found["confined floor"],
            )
        )
    rows += [Row(name, f"of which: {what}", milliseconds(values)) for what, values in starts.parts.items()]
    fastest = ", ".join(f"{min(found[one]) * 1000:.0f} ms" for one in ("floor", "pick-up", "whole"))
    rows.append(Row(name, "fastest of the rounds: floor, pick-up, whole", fastest))
    return rows
