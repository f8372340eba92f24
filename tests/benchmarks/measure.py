"""Rounds, ratios, and the rows that are printed."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Sample = Callable[[], float | None]
TOO_WIDE = 5.0
"""p95/p5 of a ratio above which a case is inconclusive: the machine was too uneven to say anything."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result. `verdict`: met, missed, inconclusive, or empty for a figure without a goal."""

    case: str
    what: str
    reached: str
    goal: str = ""
    verdict: str = ""
    note: str = ""


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest of the sorted values."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def take_turns(cases: Mapping[str, Sample], rounds: int, seed: int = 1) -> dict[str, list[float]]:
    """Seconds of each case by round. A case returns its seconds, or None to be timed from outside. One round more is run first and dropped."""
    order = random.Random(seed)
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name in order.sample(list(cases), len(cases)):
            before = time.monotonic()
            said = cases[name]()
            seconds = time.monotonic() - before if said is None else said
            if number:
                found[name].append(seconds)
    return found


def judged(
    case: str, what: str, value: float, goal: float, reached: str, goal_text: str, note: str = ""
) -> Row:
    """A row whose figure must not be above its goal."""
    return Row(case, what, reached, goal_text, "met" if value <= goal else "missed", note)


def ratio(
    case: str,
    what: str,
    subject: Sequence[float],
    floor: Sequence[float],
    goal: float | None = None,
    note: str = "",
) -> Row:
    """The median of the ratios of each round, with their 5 % and 95 %; the goal is for the median."""
    ratios = [one / other for one, other in zip(subject, floor, strict=True)]
    middle, low, high = statistics.median(ratios), percentile(ratios, 5), percentile(ratios, 95)
    reached = (
        f"{middle:.2f} x ({low:.2f} to {high:.2f}); {milliseconds(subject)} against {milliseconds(floor)}"
    )
    if goal is None:
        return Row(case, what, reached, note=note)
    verdict = "inconclusive" if high / low > TOO_WIDE else "met" if middle <= goal else "missed"
    return Row(case, what, reached, f"<= {goal:g} x", verdict, note)


def milliseconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values) * 1000:.3g} ms"


def wait_for(reached: Callable[[], object], what: str, seconds: float = 60.0, pause: float = 0.005) -> None:
    """Look until it is so. Raises TimeoutError with what was waited for."""
    until = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > until:
            raise TimeoutError(f"The benchmark waited {seconds:g} s in vain for {what}.")
        time.sleep(pause)
