"""SIGKILL to all of the server with eight sessions running; then `up`, until all eight are followed again. Floor: our own boot without a session."""

from __future__ import annotations

import statistics
import time
from typing import Any

from agents.models import Session
from pipeline import conf
from pipeline.models import Process
from tests.benchmarks.measure import Row, milliseconds, take_turns, wait_for
from tests.benchmarks.server import Server
from tests.benchmarks.world import World, served

SESSIONS = 8
PER_SESSION = 0.05
SCRIPT: list[dict[str, Any]] = [{"print": "still here"}, {"sleep": 0.2}] * 750
"""Five lines a second, for longer than the case takes."""


class Adoption:
    def __init__(self, world: World) -> None:
        self.world = world
        self.sessions = world.started(SCRIPT, SESSIONS)
        self.pids = self.agent_pids()

    def agent_pids(self) -> list[int | None]:
        return [
            one.process.pid
            for one in Session.objects.filter(state="running").select_related("process").order_by("pk")
            if one.process
        ]

    def __call__(self) -> float:
        """Seconds from the start of `up` until the database has a line of each session that it had not before the kill."""
        self.world.server.kill()
        rows = list(Process.objects.filter(kind="agent").values_list("pk", "key", "offset"))
        offsets = {pk: offset for pk, _, offset in rows}
        # Each agent has said something that nobody followed, else its offset could not move.
        wait_for(
            lambda: all((conf.runs() / key / "log").stat().st_size > offset for _, key, offset in rows),
            "lines nobody followed",
        )
        before = time.monotonic()
        self.world.server.start()
        wait_for(lambda: self.moved(offsets), "every session to be followed", pause=0.002)
        seconds = time.monotonic() - before
        if self.agent_pids() != self.pids or Session.objects.exclude(state="running").exists():
            raise RuntimeError("A session did not outlive the kill.")
        self.world.server.kill()  # it shall not disturb the other case's boot
        return seconds

    def moved(self, offsets: dict[int, int]) -> bool:
        return all(
            offset > offsets[pk]
            for pk, offset in Process.objects.filter(kind="agent").values_list("pk", "offset")
        )


def measure(rounds: int) -> list[Row]:
    with served(coders=SESSIONS) as world:
        adoption = Adoption(world)
        empty = Server(conf.home().with_name("empty"))
        empty.start()
        empty.kill()

        def boot() -> float:
            seconds = empty.start()
            empty.kill()
            return seconds

        try:
            found = take_turns({"boot": boot, "adoption": adoption}, rounds)
        finally:
            empty.close()
    goal = 2 * statistics.median(found["boot"]) + PER_SESSION * SESSIONS
    reached = statistics.median(found["adoption"])
    times = reached / statistics.median(found["boot"])
    return [
        Row("restart", "own boot with no session", milliseconds(found["boot"])),
        Row(
            "restart", f"kill -9 of all, `up`, {SESSIONS} sessions followed again", milliseconds(found["adoption"]),
            f"<= 2 x boot + {SESSIONS} x 50 ms = {goal * 1000:.3g} ms", "met" if reached <= goal else "missed",
            f"{times:.2f} x own boot; same agents, no retry",
        ),
    ]  # fmt: skip
