"""Finds lies: where database, logs, git and the kernel tell different stories. One function a rule; the command and the kill loop share them.

The rules R1-R7 are those of the specification of reliability: limits, fences, one end each, no life after the end, only gated work lands,
done = reachable, nothing lost. A lie may be a change that is under way just now: the caller looks twice (`lasting`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, order=True, slots=True)
class Lie:
    """`subject` names a row or file, such as `story web/7`; `sentence` says what does not fit, and what to do if there is something."""

    rule: str
    subject: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.rule} {self.subject}: {self.sentence}"


Checker = Callable[[], Iterable[Lie]]


def examine(checkers: Iterable[Checker]) -> list[Lie]:
    """All lies of this moment, in order."""
    return sorted({lie for checker in checkers for lie in checker()})


def lasting(checkers: Iterable[Checker], seconds: float = 3.0) -> list[Lie]:
    """The lies that are still told after a while: what was only under way is left out."""
    checkers = list(checkers)
    first = examine(checkers)
    if not first:
        return []
    time.sleep(seconds)
    again = {(lie.rule, lie.subject) for lie in first}
    return [lie for lie in examine(checkers) if (lie.rule, lie.subject) in again]


def all_of_pipeline() -> Iterator[Checker]:
    from pipeline.doctor import history, kernel, rows

    yield from (
        rows.fences,
        rows.ends,
        rows.logs,
        kernel.processes,
        kernel.strays,
        history.landed,
        history.kept,
    )
