"""What an agent that prints 50 MB/s does to the lines of another on their way to a socket (P3d).

It prints 45 MB, as its output limit is 50, so the lines are measured while it prints and while the supervisor still works its log off.
"""

from __future__ import annotations

import random
from functools import partial

from agents.models import Session
from pipeline import conf
from pipeline.models import Story
from tests.benchmarks.measure import Row, judged, percentile, wait_for
from tests.benchmarks.push import latencies
from tests.benchmarks.world import World, served

LINES = 60
MEGABYTES, PER_STEP = 45, 5
GOAL = 3.0


def measure(rounds: int) -> list[Row]:
    draw = random.Random(1)
    quiet: list[float] = []
    beside: list[float] = []
    printed: list[float] = []
    with served(coders=2) as world:
        for number in range(max(2, rounds // 4) + 1):
            gaps = [draw.uniform(0.03, 0.07) for _ in range(LINES)]
            alone = latencies(world, gaps)
            story, session = loud(world)
            log = world.log(session)
            disturbed = latencies(world, gaps, partial(begin, session), [story])
            printed.append(log.stat().st_size / 1e6)
            if number:
                quiet += alone
                beside += disturbed
    calm, other = percentile(quiet, 99), percentile(beside, 99)
    return [
        judged(
            "loud", f"an agent's line to frame while another prints 50 MB/s, p99 of {len(beside)} lines", other / calm, GOAL,
            f"{other / calm:.2f} x ({other:.0f} against {calm:.0f} ms; p50 {percentile(beside, 50):.0f} against {percentile(quiet, 50):.0f})",
            f"<= {GOAL:g} x quiet", f"it printed at least {min(printed):.0f} MB each time",
        )
    ]  # fmt: skip


def loud(world: World) -> tuple[Story, Session]:
    """An agent that waits to print its megabytes, a tenth of a second's worth at a time."""
    script: list[dict[str, object]] = [{"wait_for": {"file": ".git/go", "timeout": 60}}]
    for _ in range(MEGABYTES // PER_STEP):
        script += [{"print_bytes": {"n": PER_STEP * 10**6, "line": 1000}}, {"sleep": 0.1}]
    story = world.story([*script, {"hang": True}])
    session = world.start(story)
    wait_for(lambda: world.running(session), "the loud session")
    return story, session


def begin(session: Session) -> None:
    (conf.copy_path(session.key) / ".git" / "go").touch()
