"""How much the supervisor grows on one line of a gibibyte (P4b): its own turn over a runner's log, in this process."""

from __future__ import annotations

import os
import time
from pathlib import Path

from django.core.management import call_command

from pipeline import conf, datafolder, logevents
from pipeline.following import Followed
from pipeline.processes.records import CONTINUED, HEAD, MAX_DATA, STDOUT, VERSION
from pipeline.supervisor import Supervisor
from tests.benchmarks.ingest_cost import Intake
from tests.benchmarks.measure import Row, judged

MIB = 1 << 20
MOST_GROWTH = 8.0


def measure(rounds: int) -> list[Row]:
    datafolder.prepare(conf.home())
    call_command("migrate", verbosity=0)
    grown, seconds = growth(1024 * MIB)
    what = "the supervisor's memory on a line of 1 GiB, at its highest above before"
    return [
        judged("ingest_memory", what, grown, MOST_GROWTH, f"{grown:.1f} MiB, in {seconds:.0f} s", "<= 8 MiB")
    ]


def growth(size: int) -> tuple[float, float]:
    """(MiB at the highest above what this process held before, seconds) for one line of so many bytes, after lines of 100 kB."""
    intake = Intake([b"x" * 100_000] * 30, cut=True)
    intake.take()
    log = intake.folder / "log"
    with log.open("ab") as file:
        for left in range(size, 0, -MAX_DATA):
            data = b"y" * min(left, MAX_DATA)
            flags = CONTINUED if left > MAX_DATA else 0
            file.write(
                HEAD.pack(VERSION, STDOUT, flags, 0, time.monotonic_ns(), time.time_ns(), len(data)) + data
            )
    intake.process.refresh_from_db()
    supervisor = Supervisor()
    supervisor.followed[intake.process.pk] = followed = Followed(intake.process, intake.folder)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew (proc(5))
    before, begun, whole = status("VmRSS"), time.monotonic(), log.stat().st_size
    while followed.process.offset < whole:
        supervisor.follow()
    found = status("VmHWM") - before
    os.unlink(log)  # noqa: PTH108
    last = next(logevents.backwards(intake.process.pk))
    assert last.body["cut"] > size - 2 * MIB, "it was read, and cut"
    return found, time.monotonic() - begun


def status(name: str) -> float:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")
    )
    return int(line.split()[1]) / 1024
