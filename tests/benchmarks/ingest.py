"""How fast one loud agent's output gets into the database, and whether the supervisor's memory stays flat meanwhile (P4, P4b)."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

from pipeline import conf
from tests.benchmarks.measure import Row, judged, wait_for
from tests.benchmarks.memory import pss
from tests.benchmarks.world import World, served

MIB = 1 << 20
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "one line of 32 MiB": (32, {"huge_line": 32 * MIB}),
    "16 MiB in lines of 1,000 bytes": (16, {"print_bytes": {"n": 16 * MIB, "line": 1000}}),
    "2 MiB in lines of 100 bytes": (2, {"print_bytes": {"n": 2 * MIB, "line": 100}}),
}
MOST_GROWTH = 16.0


def measure(rounds: int) -> list[Row]:
    samples = max(2, rounds // 5)
    rows, growth = [], []
    with served(coders=1) as world:
        for name, (size, step) in KINDS.items():
            took = []
            for number in range(samples + 1):
                seconds, grown = one(world, step)
                if number:
                    took.append(seconds)
                    growth.append(grown)
            rate = size / statistics.median(took)
            rows.append(Row("ingest", f"an agent's {name}, written to stored", f"{rate:.1f} MiB/s"))
        floor = parsing()
    rows.append(Row("ingest", "json alone on lines of 1,000 bytes", f"{floor:.0f} MiB/s"))
    worst = max(growth)
    rows.append(
        judged("ingest", "supervisor's memory, most grown by one of these", worst, MOST_GROWTH, f"{worst:.1f} MiB", "<= 16 MiB")
    )  # fmt: skip
    return rows


def one(world: World, step: dict[str, Any]) -> tuple[float, float]:
    """Seconds from the agent's leave to write until all is stored; how many MiB the supervisor grew at most."""
    story = world.story(
        [{"wait_for": {"file": ".git/go", "timeout": 60}}, step, {"say": "all is said"}, {"hang": True}]
    )
    session = world.start(story)
    wait_for(lambda: world.running(session), "the session")
    assert session.process is not None
    row = world.server.row("SELECT supervisor_pid FROM pipeline_host")
    pid = int(str(row[0])) if row else 0
    before, seen = pss(pid), 0.0
    log, begun = world.log(session), time.monotonic()
    (conf.copy_path(session.key) / ".git" / "go").touch()
    ended = False
    while not ended:
        seen = max(seen, pss(pid))
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2000))
            said = b"all is said" in file.read()
        session.process.refresh_from_db()
        ended = said and session.process.offset == log.stat().st_size
        time.sleep(0.02)
        if time.monotonic() > begun + 120:
            raise TimeoutError("The output was not stored within two minutes.")
    seconds = time.monotonic() - begun
    world.end(story)
    return seconds, seen - before


def parsing() -> float:
    """MiB of lines that the json module takes in a second."""
    line = json.dumps({"kind": "text", "body": {"text": "x" * 960}})
    before = time.monotonic()
    for _ in range(20_000):
        json.loads(line)
    return 20_000 * len(line) / MIB / (time.monotonic() - before)
