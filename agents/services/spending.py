"""Budgets: what was spent, what may still be, and what a start would cost. Counted from our own ledger while agents run (Spend, LedgerRow).

A start is refused when what is spent, what the sessions under way are still likely to use, and the mean session of the agent no longer fit.
What runs is measured against the same rows by the watchdog.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any, Protocol

from django.db.models import Sum

from agents.models import Agent, Budget, Session, Spend
from agents.models.limit import PAID, Period, Scope, applying
from agents.prices import usd
from agents.states import State
from pipeline.inserting import add_up
from pipeline.logevents import moment
from pipeline.models import Story
from pipeline.prepared import Select

OF_LAST = 10
"""Ended sessions of an agent that its mean is made of."""
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
COLUMNS = (*TOKENS, "thinking_tokens", "tokens", "usd", "unpriced_usd")
"""What is summed in a row of Spend; thinking is part of the output."""
DAY = 24 * 60 * 60 * 1_000_000
LEAST_USD = Decimal("0.01")
"""What a program is given at least: nothing at all would mean no limit to it."""


@dataclass(frozen=True, slots=True)
class Used:
    usd: Decimal = Decimal(0)
    tokens: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(self.usd + other.usd, self.tokens + other.tokens)

    def less(self, other: Used) -> Used:
        """What is left of it after `other`, never below nothing."""
        return Used(max(Decimal(0), self.usd - other.usd), max(0, self.tokens - other.tokens))


@dataclass(frozen=True, slots=True)
class Standing:
    """One budget that applies, and what was used of it in its period."""

    budget: Budget
    label: str
    used: Used

    @property
    def spent(self) -> bool:
        """Nothing is left of it."""
        usd, tokens = self.budget.usd, self.budget.tokens
        return (usd is not None and self.used.usd >= usd) or (
            tokens is not None and self.used.tokens >= tokens
        )

    def fraction(self) -> float:
        """How much of it is used, 1.0 = all."""
        parts = [1.0 if limit <= 0 else float(used / limit) for used, limit in self._pairs()]
        return max(parts, default=0.0)

    def holds(self, more: Used) -> bool:
        """Whether so much more still fits."""
        usd, tokens = self.budget.usd, self.budget.tokens
        fits = usd is None or self.used.usd + more.usd <= usd
        return not self.spent and fits and (tokens is None or self.used.tokens + more.tokens <= tokens)

    def _pairs(self) -> list[tuple[Decimal, Decimal]]:
        pairs = [(self.used.usd, self.budget.usd), (Decimal(self.used.tokens), self.budget.tokens)]
        return [(used, Decimal(limit)) for used, limit in pairs if limit is not None]

    def __str__(self) -> str:
        usd, tokens = self.budget.usd, self.budget.tokens
        parts = [f"${self.used.usd:.2f} of ${usd:.2f}"] if usd is not None else []
        parts += [f"{self.used.tokens:,} of {tokens:,} tokens"] if tokens is not None else []
        period = " today" if self.budget.period == Period.DAY else ""
        return f"the budget of {self.label}: {' and '.join(parts)} spent{period}"

    def remedy(self, now: datetime) -> str:
        """When it renews, and who can raise it."""
        who = (
            "an admin of the server"
            if self.budget.scope in (Scope.SERVER, Scope.USER)
            else "an operator of its project"
        )
        if self.budget.period == Period.TOTAL:
            return f"it does not renew; {who} can raise it"
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        hours = (midnight - now).total_seconds() / 3600
        return f"it renews at 00:00 UTC (in {hours:.0f} h), and {who} can raise it"


BUDGETS: Select[Budget] = Select(Budget.objects.all)


@dataclass(slots=True)
class Budgets:
    """All budgets with what is used of each: one look, which asks the database for each thing once."""

    now: datetime
    rows: dict[str, dict[tuple[str, str], Budget]] = field(default_factory=dict)
    _used: dict[tuple[str, str, str], Used] = field(default_factory=dict)
    _means: dict[int, Used] = field(default_factory=dict)
    _live: list[Session] | None = None

    @classmethod
    def look(cls, now: datetime) -> Budgets:
        found = cls(now)
        for row in BUDGETS():
            found.rows.setdefault(row.period, {})[row.scope, row.subject] = row
        return found

    def applying(self, story: Story, person: Any) -> list[Standing]:
        """Every budget that what this person spends on this story counts against."""
        if not self.rows:
            return []
        subjects = {
            Scope.SERVER: ("", "the server"),
            Scope.PROJECT: (story.project_id, f"project {story.project.name}"),
            Scope.STORY: (story.pk, f"story {story.label}"),
        }
        if person is not None:
            subjects[Scope.USER] = (person.pk, str(person.get_username()))
        found = []
        for period, rows in self.rows.items():
            for scope in PAID:
                subject, label = subjects.get(scope, (None, ""))
                row = applying(rows, scope, subject) if subject is not None else None
                if row is not None:
                    found.append(Standing(row, label, self.used(period, scope, subject)))
        return found

    def used(self, period: str, scope: str, subject: Any) -> Used:
        key = (period, scope, str(subject))
        if key not in self._used:
            self._used[key] = self._ask(period, scope, subject)
        return self._used[key]

    def _ask(self, period: str, scope: str, subject: Any) -> Used:
        day = self.now.astimezone(UTC).date()
        spend = Spend.objects.filter(day=day) if period == Period.DAY else Spend.objects.all()
        if scope == Scope.PROJECT:
            spend = spend.filter(project_id=subject)
        elif scope == Scope.USER:
            spend = spend.filter(user_id=subject)
        elif scope == Scope.STORY:
            spend = spend.filter(story_id=subject)
        sums = spend.aggregate(Sum("usd"), Sum("tokens"))
        return Used(sums["usd__sum"] or Decimal(0), sums["tokens__sum"] or 0)

    def mean(self, agent_id: int) -> Used:
        """What a session of this agent costs, by the last that ended; nothing for an agent without any."""
        if agent_id not in self._means:
            ended = Session.objects.filter(agent_id=agent_id, state=State.ENDED, started_at__isnull=False)
            last = [_of(session) for session in ended.order_by("-id")[:OF_LAST]]
            total = sum(last, Used())
            self._means[agent_id] = Used(total.usd / len(last), total.tokens // len(last)) if last else Used()
        return self._means[agent_id]

    def reserved(self, scope: str, subject: Any) -> Used:
        """What the sessions under way that count against it are still likely to use."""
        if self._live is None:
            self._live = list(Session.objects.live())
        of: dict[str, str] = {
            Scope.PROJECT: "project_id",
            Scope.USER: "started_by_id",
            Scope.STORY: "story_id",
        }
        name = of.get(scope)
        counted = [s for s in self._live if name is None or str(getattr(s, name)) == str(subject)]
        return sum((self.mean(s.agent_id).less(_of(s)) for s in counted), Used())

    def refusal(self, story: Story, agent: Agent, person: Any) -> str:
        """Why no budget allows a session of this agent on this story, "" if all do."""
        for standing in self.applying(story, person):
            mean = self.mean(agent.pk)
            subject = {
                Scope.PROJECT: story.project_id,
                Scope.STORY: story.pk,
                Scope.USER: person.pk if person else None,
            }.get(Scope(standing.budget.scope))
            reserved = self.reserved(standing.budget.scope, subject)
            if not standing.holds(mean + reserved):
                return (
                    f"{standing}{_projection(standing, agent, mean, reserved)}; {standing.remedy(self.now)}"
                )
        return ""


def left(session: Session, now: datetime) -> Decimal | None:
    """The US dollars that this session may still use by every budget that applies; None = no budget is in the way."""
    found = [
        standing.budget.usd - standing.used.usd
        for standing in Budgets.look(now).applying(session.story, session.started_by)
        if standing.budget.usd is not None
    ]
    return max(LEAST_USD, min(found).quantize(LEAST_USD)) if found else None


class Counted(Protocol):
    """What of a ledger row is summed; `at` in microseconds since 1970, `cost` in millionths of a USD."""

    @property
    def at(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def cost(self) -> int: ...
    @property
    def price_unknown(self) -> bool: ...


def add(session: Session, rows: Iterable[Counted]) -> dict[str, Any]:
    """Count ledger rows into the session's spending of their days, in their transaction; `session.agent` is at hand.

    Returns the sums of all of them: COLUMNS, and `cost_usd`.
    """
    of: dict[tuple[int, str], list[Counted]] = {}
    for row in rows:
        of.setdefault((row.at // DAY, row.model), []).append(row)
    whole: dict[str, Any] = dict.fromkeys(COLUMNS, 0)
    for (day, model), these in of.items():
        more: dict[str, Any] = {
            name: sum(map(attrgetter(name), these)) for name in (*TOKENS, "thinking_tokens")
        }
        more["tokens"] = sum(more[name] for name in TOKENS)
        more["usd"] = usd(sum(row.cost for row in these))
        more["unpriced_usd"] = usd(sum(row.cost for row in these if row.price_unknown))
        whole = {name: whole[name] + more[name] for name in COLUMNS}
        # A session's log has one writer at a time, so nobody else makes the row meanwhile (and the constraint would tell).
        day_of = moment(day * DAY).date()
        if not add_up(Spend, {"session": session.pk, "day": day_of, "model": model}, more):
            Spend.objects.create(
                day=day_of,
                session=session,
                story_id=session.story_id,
                project_id=session.project_id,
                user_id=session.started_by_id,
                agent=session.agent.name,
                model=model,
                **more,
            )
    return {**whole, "cost_usd": whole["usd"]}


def _of(session: Session) -> Used:
    return Used(session.cost_usd, session.tokens)


def _projection(standing: Standing, agent: Agent, mean: Used, reserved: Used) -> str:
    """What a start would come to, where that is what stands in the way."""
    if standing.spent:
        return ""

    def said(used: Used) -> str:
        return f"${used.usd:.2f}" if standing.budget.usd is not None else f"{used.tokens:,} tokens"

    under_way = f" and what runs is likely to use {said(reserved)} more" if reserved != Used() else ""
    return f", a session of {agent.name} costs about {said(mean)}{under_way}"
