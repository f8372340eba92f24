"""Changing limits and budgets: by name, under the capacity lock, each with an Act. Lowering one never kills: what runs counts until it ends."""

from __future__ import annotations

from decimal import Decimal

from django.db import transaction

from agents.models import Budget, Limit
from agents.models.limit import COUNTED, PAID, Period
from agents.services import pool, subjects
from agents.services.subjects import Subject
from pipeline import events
from pipeline.actors import Actor
from pipeline.exceptions import BadInput, NotAllowed, NotFound
from pipeline.models import Act, Capacity, Project
from pipeline.roles import may
from pipeline.services.stories import check_may
from pipeline.texts import storable

SESSIONS_AT_MOST = 1_000_000
USD_AT_MOST = Decimal(10_000_000)
TOKENS_AT_MOST = 10**15


def set_limit(scope: str, subject: str, most: int | None, *, actor: Actor, why: str = "") -> Limit | None:
    """How many sessions may live at once (scope `review`: how many stories may await a person). None takes the limit away.

    `subject`: a name, "" = each that has no limit of its own. Raises NotAllowed, BadInput, NotFound.
    """
    of = _found(scope, subject, COUNTED, "a limit")
    _check(actor, "limit.edit", of)
    if most is not None and not 0 <= most <= SESSIONS_AT_MOST:
        raise BadInput(f"A limit is a number from 0 (nothing starts) to {SESSIONS_AT_MOST}; {most} is none.")
    with transaction.atomic():
        Capacity.lock()
        rows = Limit.objects.filter(scope=of.scope, subject=of.id)
        before = rows.values_list("most", flat=True).first()
        if most is None:
            if before is None:
                raise NotFound(f"There is no limit on {of.label}, so there is nothing to take away.")
            rows.delete()
        else:
            Limit.objects.update_or_create(scope=of.scope, subject=of.id, defaults={"most": most})
        change = f"{_or_none(before)} -> {_or_none(most)}"
        _tell(of, "limit", f"limit on {of.label}", change, actor, why)
        return rows.first()


def set_budget(
    scope: str,
    subject: str,
    period: str,
    usd: Decimal | None,
    tokens: int | None,
    *,
    actor: Actor,
    why: str = "",
) -> Budget | None:
    """What may be spent in a period: US dollars, tokens, or both; None of both takes the budget away. As `set_limit` otherwise."""
    of = _found(scope, subject, PAID, "a budget")
    _check(actor, "budget.edit", of)
    if period not in Period.values:
        raise BadInput(f"{period!r} is no period of a budget; there are {', '.join(Period.values)}.")
    if usd is not None:
        if not usd.is_finite() or not 0 <= usd <= USD_AT_MOST:
            raise BadInput(f"A budget in US dollars lies between 0 and {USD_AT_MOST}; {usd} does not.")
        usd = usd.quantize(Decimal("0.000001"))
    if tokens is not None and not 0 <= tokens <= TOKENS_AT_MOST:
        raise BadInput(f"A budget in tokens lies between 0 and {TOKENS_AT_MOST}; {tokens} does not.")
    with transaction.atomic():
        Capacity.lock()
        rows = Budget.objects.filter(scope=of.scope, subject=of.id, period=period)
        before = rows.first()
        if usd is None and tokens is None:
            if before is None:
                raise NotFound(
                    f"There is no budget {_spoken(period)} for {of.label}, so there is nothing to take away."
                )
            rows.delete()
        else:
            Budget.objects.update_or_create(
                scope=of.scope, subject=of.id, period=period, defaults={"usd": usd, "tokens": tokens}
            )
        after = rows.first()
        change = f"{_money(before)} -> {_money(after)}"
        _tell(of, "budget", f"budget {_spoken(period)} for {of.label}", change, actor, why)
        return after


def _found(scope: str, subject: str, known: tuple[str, ...], what: str) -> Subject:
    if scope not in known:
        raise BadInput(f"{scope!r} cannot have {what}; there are {', '.join(known)}.")
    return subjects.find(scope, subject)


def _check(actor: Actor, verb: str, of: Subject) -> None:
    if of.project is None and actor.user is not None and not may(actor.user, verb, None):
        raise NotAllowed(
            f"{actor.name} may not change what holds for {of.label}: only an admin of the whole server may."
        )
    check_may(actor, verb, of.project)


def _tell(of: Subject, noun: str, what: str, change: str, actor: Actor, why: str) -> None:
    """The act, the news for every page that shows it, and a look for work: a raised limit frees agents."""
    verb = f"{noun}.clear" if change.endswith("-> none") else f"{noun}.set"
    Act.objects.create(
        actor=actor.name, verb=verb, subject=what, why=storable(f"{change}. {why}".strip(". "), "reason")
    )
    of_one = [of.project.pk] if of.project else None
    concerned = of_one or list(Project.objects.order_by("pk").values_list("pk", flat=True))
    for project_id in concerned:
        events.record(project_id, "limits", text=f"{actor.name} changed the {what}: {change}")
        pool.look_later(project_id)


def _spoken(period: str) -> str:
    return "a day" if period == Period.DAY else "in all"


def _or_none(most: int | None) -> str:
    return "none" if most is None else str(most)


def _money(row: Budget | None) -> str:
    if row is None:
        return "none"
    said = [f"${row.usd.normalize():f}"] if row.usd is not None else []
    return " and ".join([*said, *([f"{row.tokens} tokens"] if row.tokens is not None else [])])
