"""The same starts on a host without bubblewrap: the program is found by PATH, so the case gets a PATH without it."""

from __future__ import annotations

from tests.benchmarks import start
from tests.benchmarks.measure import Row


def measure(rounds: int) -> list[Row]:
    return start.measure(rounds)
