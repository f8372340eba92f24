"""What the events of a session cost and count: ledger rows, the day's spending and the session's sums, in the transaction that stores the events."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from django.db.models import F

from agents.models import LedgerRow, Session
from agents.prices import MICRO
from agents.services import breaker, spending
from agents.services.progress import SOFT, Watch
from pipeline.inserting import insert, moments
from pipeline.logevents import NewEvent
from pipeline.models import Process

KINDS = ("input", "output", "cache_read", "cache_write", "thinking")
SUMS = (*(f"{kind}_tokens" for kind in KINDS), "cost_usd")
COUNTED = {"usage", "tool_start", "rate_limit", "ended"}
SAID = {"ended": "program_run_cost_usd", "usage": "program_cost_usd"}
"""Where in an event's body the program's own figure stands, of a turn or of a request."""
MOST_USD = Decimal(10_000_000)
"""Of one row or figure: beyond it stands nothing but nonsense, which no column has room for."""


def book(process: Process, new: Sequence[NewEvent], first_seq: int) -> None:
    """Rows that follow from a batch of events. A batch without any that counts costs no query."""
    if not any(event.kind in COUNTED for event in new):
        return
    session = Session.objects.select_related("agent", "credential", "project").get(process=process)
    watch = Watch.of(process.parser_state)
    rows = [_row(number, event) for number, event in enumerate(new, first_seq) if event.kind == "usage"]
    values: dict[str, object] = {
        "turns": watch.turns,
        "tool_turns": watch.tool_turns,
        "throttled": watch.throttled,
    }
    if rows:
        times = moments(row.at for row in rows)
        insert(
            LedgerRow,
            COLUMNS,
            [(session.pk, *row[:-2], str(row.cost_usd), at) for row, at in zip(rows, times, strict=True)],
        )
        sums = spending.add(session, rows)
        values |= {name: F(name) + sums[name] for name in SUMS}
    Session.objects.filter(pk=session.pk).update(**values, **_reconciled(session, rows, new, first_seq))
    for event in new:
        if event.kind == "rate_limit" and event.body.get("status") == SOFT:
            breaker.throttle(session, event.body.get("resets_at"))
    if watch.blocked and any(event.kind == "rate_limit" for event in new):
        breaker.limit(session, "The account's limit is reached.", watch.until or None)


COLUMNS = (
    "session",
    "seq",
    "request_id",
    "model",
    *(f"{kind}_tokens" for kind in KINDS),
    "price_unknown",
    "cost_usd",
    "at",
)


class Booked(NamedTuple):
    """A row of the ledger that is not stored yet: COLUMNS without the session."""

    seq: int
    request_id: str
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    thinking_tokens: int
    price_unknown: bool
    cost_usd: Decimal
    at: int


def _row(number: int, event: NewEvent) -> Booked:
    body = event.body
    counts: dict[str, Any] = {f"{kind}_tokens": body.get(kind, 0) for kind in KINDS}
    return Booked(
        seq=number,
        request_id=body.get("request_id", "")[:100],
        model=body.get("model", "")[:100],
        price_unknown=bool(body.get("unlisted")),
        cost_usd=dollars(body.get("cost_usd", "0")) or Decimal(0),
        at=event.at,
        **counts,
    )


def _reconciled(
    session: Session, rows: Sequence[Booked], new: Sequence[NewEvent], first_seq: int
) -> dict[str, Decimal]:
    """The program's own figure so far, where it says one, and ours of that moment; nothing where it said none in this batch."""
    said: dict[str, Decimal] = {}
    reported = session.reported_cost_usd or Decimal(0)
    for seq, event in enumerate(new, first_seq):
        name = SAID.get(event.kind)
        amount = dollars(event.body[name]) if name and name in event.body else None
        if amount is not None:
            reported = min(MOST_USD, reported + amount)
            ours = session.cost_usd + sum((row.cost_usd for row in rows if row.seq <= seq), Decimal(0))
            said = {"reported_cost_usd": reported, "reconciled_cost_usd": ours}
    return said


def dollars(value: object) -> Decimal | None:
    """An amount as the columns keep it: six places, not negative, bounded; None for what is no number."""
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return max(Decimal(0), min(amount, MOST_USD)).quantize(MICRO) if amount.is_finite() else None
