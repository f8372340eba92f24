"""What the events of a session cost and count: ledger rows, the day's spending and the session's sums, in the transaction that stores the events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from decimal import Decimal

from django.db.models import F

from agents.models import LedgerRow, Session
from agents.services import breaker, spending
from agents.services.progress import SOFT, Watch
from pipeline.kinds import NewEvent
from pipeline.models import Process

MICRO = Decimal("0.000001")
SUMS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_usd")
COUNTED = {"usage", "tool_start", "rate_limit", "ended"}


def book(process: Process, new: Sequence[NewEvent], first_seq: int) -> None:
    """Rows that follow from a batch of events. A batch without any that counts costs no query."""
    if not any(event.kind in COUNTED for event in new):
        return
    session = Session.objects.select_related("agent", "credential", "project").get(process=process)
    watch = Watch.of(process.parser_state)
    rows = [
        _row(session, number, event) for number, event in enumerate(new, first_seq) if event.kind == "usage"
    ]
    values: dict[str, object] = {
        "turns": watch.turns,
        "tool_turns": watch.tool_turns,
        "throttled": watch.throttled,
    }
    if rows:
        LedgerRow.objects.bulk_create(rows)
        spending.add(session, rows)
        values |= {name: F(name) + sum(getattr(row, name) for row in rows) for name in SUMS}
    for event in new:
        if event.kind == "ended" and event.body.get("program_run_cost_usd") is not None:
            values["reported_cost_usd"] = Decimal(str(event.body["program_run_cost_usd"])).quantize(MICRO)
    Session.objects.filter(pk=session.pk).update(**values)
    for event in new:
        if event.kind == "rate_limit" and event.body.get("status") == SOFT:
            breaker.throttle(session, event.body.get("resets_at"))
    if watch.blocked and any(event.kind == "rate_limit" for event in new):
        breaker.limit(session, "The account's limit is reached.", watch.until or None)


def _row(session: Session, number: int, event: NewEvent) -> LedgerRow:
    body = event.body
    return LedgerRow(
        session_id=session.pk,
        seq=number,
        request_id=body.get("request_id", "")[:100],
        model=body.get("model", "")[:100],
        at=event.at.astimezone(UTC),
        input_tokens=body.get("input", 0),
        output_tokens=body.get("output", 0),
        cache_read_tokens=body.get("cache_read", 0),
        cache_write_tokens=body.get("cache_write", 0),
        cost_usd=Decimal(body.get("cost_usd", "0")),
    )
