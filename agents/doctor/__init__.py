"""What agents, sessions and their costs can lie about, and what of it is mended: checkers and healers as in `pipeline.doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.doctor import Checker, Healer


def all_of_agents() -> Iterator[Checker]:
    from agents.doctor import limits, sessions, work

    yield from (
        limits.at_most_one,
        limits.limits,
        sessions.fences,
        sessions.ends,
        sessions.slots,
        sessions.saved,
        sessions.copies,
        work.claims,
        work.startable,
        work.counters,
        work.costs,
        work.dates,
    )


def healers_of_agents() -> Iterator[Healer]:
    from agents.doctor import healing

    yield from (
        healing.held_slots,
        healing.lives_after_the_end,
        healing.lost_refs,
        healing.sums,
        healing.forgotten_suspects,
    )
