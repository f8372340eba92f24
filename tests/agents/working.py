"""Sessions as rows, without a child: what a claim and an end would have written."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils import timezone

from agents.models import Agent, Credential, LedgerRow, Session
from agents.services import booking, deciding, spending
from pipeline import conf, moves
from pipeline.logevents import microseconds
from pipeline.models import Process, Story
from tests.factories import ALICE


def in_coding(story: Story) -> Story:
    with transaction.atomic():
        return moves.move(story, "start", actor=ALICE)


def session(story: Story, agent: Agent, **values: Any) -> Session:
    """A running session that holds the story's fence."""
    key = conf.new_key()
    process = Process.objects.create(
        key=key, kind="agent", host=conf.host(), project=story.project, story=story, state="handled"
    )
    fence = Story.objects.values_list("fence", flat=True).get(pk=story.pk) + 1
    Story.objects.filter(pk=story.pk).update(fence=fence)
    given: dict[str, Any] = {
        "state": "running",
        "started_at": timezone.now(),
        "conversation": "c",
        "entry": agent.entry,
        "credential": Credential.objects.filter(name=agent.entry.get("credential", "")).first(),
        **values,
    }
    return Session.objects.create(
        story=story, project=story.project, agent=agent, role=agent.role, runtime=agent.runtime,
        model=agent.model, key=key, fence=fence, host=conf.host(), process=process, **given,
    )  # fmt: skip


def ended(story: Story, agent: Agent, cost: str = "0", tokens: int = 0, outcome: str = "done") -> Session:
    return session(
        story,
        agent,
        state="ended",
        outcome=outcome,
        cost_usd=Decimal(cost),
        input_tokens=tokens,
        ended_at=timezone.now(),
    )


def end(of: Session, kind: str, reason: str = "It ended.", **told: Any) -> Session:
    """Conclude a session that left no copy behind, as its handler would."""
    of.told = {"kind": kind, "reason": reason, "until": None, "detail": "", **told}
    Session.objects.filter(pk=of.pk).update(told=of.told)
    with transaction.atomic():
        deciding.conclude(of, None)
    of.refresh_from_db()
    return of


def booked(row: LedgerRow) -> booking.Booked:
    same = {name: getattr(row, name) for name in booking.Booked._fields if hasattr(row, name)}
    cost = int(row.cost_usd * 10**6)
    return booking.Booked(**same | {"cost": cost, "at": microseconds(row.at)})


def spend(of: Session, cost: str, tokens: int = 0, at: datetime | None = None, seq: int = 1) -> None:
    """What one request used, as the stream would have booked it."""
    row = LedgerRow(
        session=of, seq=seq, model="m", at=at or timezone.now(), cost_usd=Decimal(cost), input_tokens=tokens
    )
    with transaction.atomic():
        row.save(force_insert=True)
        spending.add(of, [booked(row)])
        Session.objects.filter(pk=of.pk).update(
            cost_usd=of.cost_usd + row.cost_usd, input_tokens=of.input_tokens + tokens
        )
    of.refresh_from_db()
