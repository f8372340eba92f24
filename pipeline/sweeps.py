"""Every message has a sweep beside it: periodic functions that the supervisor calls on its monotonic clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sweep:
    name: str
    seconds: float
    run: Callable[[], object]


_sweeps: dict[str, Sweep] = {}


def register(name: str, seconds: float, run: Callable[[], object]) -> None:
    """Call `run()` each `seconds`; it must be idempotent and cheap when there is nothing to do."""
    _sweeps[name] = Sweep(name, seconds, run)


def all_sweeps() -> list[Sweep]:
    return list(_sweeps.values())
