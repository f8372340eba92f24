"""Finds lies: where database, logs, git and the kernel tell different stories. One function a rule; the command and the kill loop share them.

The rules R1-R12 are those of the specification of reliability: limits, fences, one end each, no life after the end, only gated work lands,
done = reachable, nothing lost, each command once, no lost wake-up, numbered news, bounds, clocks. A lie may be a change that is under way
just now: the caller looks twice (`lasting`). What can be mended is, by a healer: idempotent, and each act told in the history.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

logger = logging.getLogger("huskies.doctor")


@dataclass(frozen=True, order=True, slots=True)
class Lie:
    """`subject` names a row or file, such as `story web/7`; `sentence` says what does not fit, and what to do if there is something."""

    rule: str
    subject: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.rule} {self.subject}: {self.sentence}"


Checker = Callable[[], Iterable[Lie]]


@dataclass(frozen=True, order=True, slots=True)
class Healed:
    """`sentence`: what was found, and what was done about it."""

    rule: str
    subject: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.rule} {self.subject}: {self.sentence}"


Healer = Callable[[], Iterable[Healed]]
HEALED = "doctor.heal"
"""The verb of the act that tells of a healing."""


def heal(healers: Iterable[Healer]) -> list[Healed]:
    """Mend what can be; each act stands in the server's history. A healer that fails stops no other."""
    from pipeline.models import Act

    done: list[Healed] = []
    for healer in healers:
        try:
            for healed in healer():
                Act.objects.create(
                    actor="server",
                    verb=HEALED,
                    subject=healed.subject[:300],
                    why=f"{healed.rule}: {healed.sentence}",
                )
                done.append(healed)
        except Exception:
            logger.exception(
                "The doctor could not heal by %s.",
                getattr(healer, "__name__", healer),
                extra={"action": "heal_failed"},
            )
    return done


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
    from pipeline.doctor import history, kernel, life, rows

    yield from (
        rows.fences,
        rows.ends,
        rows.logs,
        kernel.processes,
        kernel.strays,
        life.histories,
        life.reasons,
        life.timers,
        life.queues,
        life.news,
        life.bounds,
        life.dates,
        history.landed,
        history.kept,
    )


def healers_of_pipeline() -> Iterator[Healer]:
    from pipeline.doctor import healing

    yield from (
        healing.lives_after_the_end,
        healing.unknown_runners,
        healing.stale_timers,
        healing.counters,
        healing.landed,
    )
