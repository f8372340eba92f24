"""The limits of one session's own, from its agent's entry: how much is used of each, and what is said when that is much. Pure.

A warning comes at 80 % of a limit, once. Who changed something or read something new after it gets 20 % more, once; the time on the wall
is exact, since the runner keeps it without a server. What people pay for together (`spending`) is never extended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from agents import conf
from agents.models import Session
from agents.services.progress import Watch
from agents.states import StopCause


@dataclass(frozen=True, slots=True)
class Allowance:
    """`used` of `most`, in words `said`; `over` says whether it is time to stop, by the server's judgement."""

    cause: StopCause
    said: str
    used: float
    most: float
    over: bool

    @property
    def near(self) -> bool:
        return self.used >= self.most * conf.WARN_AT


def of(session: Session, watch: Watch, now: datetime) -> list[Allowance]:
    """Every limit that its entry sets."""
    entry = session.entry
    more = extended(session, watch)
    found = []
    for name, cause, used in (
        ("max_turns", StopCause.TURN_LIMIT, watch.turns),
        ("max_tool_turns", StopCause.TURN_LIMIT, watch.tool_turns),
    ):
        if most := entry.get(name):
            top = raised(int(most)) if more else int(most)
            what = "turns that use a tool" if name == "max_tool_turns" else "turns"
            # A turn counts when it begins: the last one that is allowed may be finished.
            found.append(
                Allowance(cause, f"{min(used, top)} of {top} {what} ({name})", used, top, used > top)
            )
    if entry.get("max_budget_usd") is not None:
        own = Decimal(str(entry["max_budget_usd"]))
        top_usd = raised_usd(own) if more else own
        said = f"${session.cost_usd:.2f} of ${top_usd:.2f} (max_budget_usd)"
        over = session.cost_usd >= top_usd
        found.append(Allowance(StopCause.BUDGET, said, float(session.cost_usd), float(top_usd), over))
    if session.started_at is not None:
        most_time = float(entry.get("max_session_time") or conf.SESSION_WALL_SECONDS)
        waited = min(watch.waits(now.timestamp()), conf.WAIT_ROOM_SECONDS)
        lasted = (now - session.started_at).total_seconds() - waited
        said = f"{lasted / 60:.0f} of {most_time / 60:.0f} minutes (max_session_time)"
        # The runner keeps it exactly and without a server, except where it leaves room for the wait for people.
        found.append(Allowance(StopCause.WALL_LIMIT, said, lasted, most_time, over=lasted > most_time))
    return found


def extended(session: Session, watch: Watch) -> bool:
    """Whether it made progress after it was warned."""
    return session.warned_at is not None and watch.progressed > session.warned_at.timestamp()


def raised(most: int) -> int:
    return most + int(most * conf.EXTENSION)


def raised_usd(most: Decimal) -> Decimal:
    return most * (1 + Decimal(str(conf.EXTENSION)))


def for_program(entry: Mapping[str, Any], left: Decimal | None) -> dict[str, Any]:
    """The entry as the program gets it: limits of its own stand where the server's end at the latest.

    `left`, of all shared budgets in USD, comes as `budget_left_usd`: a program that keeps no budget need not refuse what nobody named for it.
    """
    given = dict(entry)
    if given.get("max_turns"):
        given["max_turns"] = raised(int(given["max_turns"]))
    if given.get("max_budget_usd") is not None:
        given["max_budget_usd"] = str(raised_usd(Decimal(str(given["max_budget_usd"]))))
    if left is not None:
        given["budget_left_usd"] = str(left)
    return given
