"""What the events of a session cost and count: ledger rows, the day's spending and the session's sums, in the transaction that stores the events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from operator import itemgetter
from typing import Any, NamedTuple

from agents.models import LedgerRow, Session
from agents.prices import MICRO, usd
from agents.runtimes.ledger import dollars
from agents.services import breaker, spending
from agents.services.progress import SOFT, Watch
from pipeline.inserting import add_up, insert, moments
from pipeline.logevents import NewEvent
from pipeline.models import Process
from pipeline.prepared import Select

KINDS = ("input", "output", "cache_read", "cache_write", "thinking")
SUMS = (*(f"{kind}_tokens" for kind in KINDS), "cost_usd")
COUNTED = {"usage", "tool_start", "rate_limit", "ended"}
SAID = {"ended": "program_run_cost_usd", "usage": "program_cost_usd"}
"""Where in an event's body the program's own figure stands, of a turn or of a request."""
MOST_USD = Decimal(10_000_000)
"""Of one row or figure: beyond it stands nothing but nonsense, which no column has room for."""


def book(process: Process, new: Sequence[NewEvent], first_seq: int) -> None:
    """Rows that follow from a batch of events. A batch without any that counts costs no query."""
    counted = [(seq, event) for seq, event in enumerate(new, first_seq) if event.kind in COUNTED]
    if not counted:
        return
    [session] = OF_PROCESS(process.pk)
    sums: Mapping[str, Any] = {}
    watch = Watch.of(process.parser_state)
    rows = [_row(seq, *event[1:]) for seq, event in counted if event[0] == "usage"]
    values: dict[str, object] = {
        "turns": watch.turns,
        "tool_turns": watch.tool_turns,
        "throttled": watch.throttled,
    }
    if rows:
        times, pk = moments([row.at for row in rows]), session.pk
        insert(
            LedgerRow,
            COLUMNS,
            [(pk, *row[:-2], dollars(row.cost), at) for row, at in zip(rows, times, strict=True)],
        )
        added = spending.add(session, rows)
        sums = {name: added[name] for name in SUMS}
    add_up(Session, {"id": session.pk}, sums, values | _reconciled(session, rows, counted))
    for _, event in counted:
        if event.kind == "rate_limit" and event.body.get("status") == SOFT:
            breaker.throttle(session, event.body.get("resets_at"))
    if watch.blocked and any(event.kind == "rate_limit" for _, event in counted):
        breaker.limit(session, "The account's limit is reached.", watch.until or None)


OF_PROCESS: Select[Session] = Select(
    lambda process: Session.objects.select_related("agent").filter(process=process),
    int,
)
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
    """A row of the ledger that is not stored yet: COLUMNS without the session. `cost` in millionths of a USD, `at` in microseconds since 1970."""

    seq: int
    request_id: str
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    thinking_tokens: int
    price_unknown: bool
    cost: int
    at: int


OF_BODY = itemgetter(
    "request_id", "model", "input", "output", "cache_read", "cache_write", "thinking", "cost_usd"
)


def _row(seq: int, body: Mapping[str, Any], at: int) -> Booked:
    request, model, *counts, cost = OF_BODY(body)
    known = (seq, request[:100], model[:100], *counts, "unlisted" in body, micro_dollars(cost) or 0, at)
    return tuple.__new__(Booked, known)


def _reconciled(
    session: Session, rows: Sequence[Booked], counted: Sequence[tuple[int, NewEvent]]
) -> dict[str, Decimal]:
    """The program's own figure so far, where it says one, and ours of that moment; nothing where it said none in this batch."""
    said: dict[str, Decimal] = {}
    reported = session.reported_cost_usd or Decimal(0)
    figures = [(seq, body[SAID[kind]]) for seq, (kind, body, _) in counted if SAID.get(kind) in body]
    for seq, figure in figures:
        if (amount := micro_dollars(figure)) is not None:
            reported = min(MOST_USD, reported + usd(amount))
            ours = session.cost_usd + usd(sum(row.cost for row in rows if row.seq <= seq))
            said = {"reported_cost_usd": reported, "reconciled_cost_usd": ours}
    return said


def micro_dollars(value: object) -> int | None:
    """An amount in USD as the columns keep it: millionths, not negative, bounded; None for what is no number."""
    if type(value) is str and value[-7:-6] == "." and len(value) <= 14:  # as our own are written
        digits = value[:-7] + value[-6:]
        if digits.isdecimal():
            return int(digits)
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    if not amount.is_finite():
        return None
    return int(max(Decimal(0), min(amount, MOST_USD)).quantize(MICRO).scaleb(6))
