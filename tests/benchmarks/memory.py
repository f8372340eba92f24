"""Memory as the kernel counts it (PSS of smaps_rollup: shared pages are divided among those that share them)."""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from agents.models import Session
from tests.benchmarks.measure import Row, judged, wait_for
from tests.benchmarks.world import World, served

SESSIONS = 8
SCRIPT: list[dict[str, Any]] = [{"say": f"line {n} of some work that is said"} for n in range(50)]
SCRIPT.append({"hang": True})
MIB = 1024.0  # in kB, as the kernel says it
MOST_IDLE, MOST_RUNNER = 200e6 / 2**20, 12e6 / 2**20


def pss(pid: int) -> float:
    """MiB; 0 for a process that ended meanwhile."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / MIB


def whole(world: World) -> float:
    return sum(pss(pid) for pid in world.server.members())


def measure(rounds: int) -> list[Row]:
    samples = max(3, rounds // 3)
    with served(coders=SESSIONS) as world:
        fresh = whole(world)
        per_session, idle, runners = [], [], []
        for number in range(samples + 1):
            before = whole(world)
            sessions = world.started(SCRIPT, SESSIONS)
            wait_for(partial(all_followed, sessions), "the sessions' lines in the database")
            after = whole(world)
            keepers = [pss(one.process.pid) for one in sessions if one.process and one.process.pid]
            world.end(*(one.story for one in sessions))
            if number:  # the first time pays for what every later session finds in memory
                idle.append(before)
                per_session.append((after - before) / SESSIONS)
                runners += keepers
    command = [sys.executable, "-I", "-S", "-c", "import sys; print(1, flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bare:
        assert bare.stdout and bare.stdin
        bare.stdout.readline()
        floor = pss(bare.pid)
        bare.stdin.close()
    each, runner = statistics.median(per_session), statistics.median(runners)
    first, later = (
        "everything idle, just started (PSS of up, web, workers, supervisor)",
        f"everything idle, after {SESSIONS} to {SESSIONS * samples} sessions",
    )
    kept = f"{statistics.median(idle):.0f} MiB, at most {max(idle):.0f}"
    bare_python = f"idle `python -I -S`: {floor:.1f}"
    return [
        judged("memory", first, fresh, MOST_IDLE, f"{fresh:.0f} MiB", "<= 200 MB (190 MiB), 150 the aim"),
        judged("memory", later, max(idle), MOST_IDLE, kept, "<= 200 MB"),
        judged(
            "memory",
            f"server's growth per running session ({SESSIONS} at once)",
            each,
            0.5,
            f"{each:.2f} MiB",
            "<= 0.5 MiB",
        ),
        judged(
            "memory",
            "one runner",
            runner,
            MOST_RUNNER,
            f"{runner:.1f} MiB, at most {max(runners):.1f}",
            "<= 12 MB",
            bare_python,
        ),
    ]


def all_followed(sessions: list[Session]) -> bool:
    """Whether every line that they say is in the database."""
    for one in sessions:
        one.refresh_from_db()
    return all(one.process is not None and one.process.last_seq >= len(SCRIPT) for one in sessions)
