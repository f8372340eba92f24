"""What the work of agents can lie about: claims told once (R8), nothing startable forgotten (R9), counters within their caps (R11),
dates (R12), and costs: a session's is the sum of its requests, and every cent stands in the day's spending."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

from django.db.models import Count, OuterRef, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from agents import conf as agents_conf
from agents.exceptions import MustWait, NoCoder
from agents.models import LedgerRow, Session, Spend
from agents.services import assigning, choosing, looking
from agents.services.booking import SUMS
from agents.states import Role
from pipeline.doctor import Lie, life
from pipeline.models import StageChange, Story
from pipeline.services import foreground, gates, projects
from pipeline.stages import Stage

ASSIGNED_WITHIN = timedelta(seconds=10)
"""The sweep looks every two seconds; this leaves room for a slow machine."""
LOOKED_AT = 100
RECENT = 1000


def claims() -> Iterator[Lie]:
    """R8: each session was claimed once, and each claim made one session."""
    told = (
        StageChange.objects.filter(story=OuterRef("pk"), verb="claim")
        .order_by()
        .values("story")
        .annotate(n=Count("pk"))
        .values("n")
    )
    made = (
        Session.objects.filter(story=OuterRef("pk"))
        .order_by()
        .values("story")
        .annotate(n=Count("pk"))
        .values("n")
    )
    rows = Story.objects.annotate(told=Coalesce(Subquery(told), 0), made=Coalesce(Subquery(made), 0)).exclude(
        told=0, made=0
    )
    for project, number, said, sessions in rows.values_list("project__name", "number", "told", "made"):
        if said != sessions:
            yield Lie(
                "R8",
                f"story {project}/{number}",
                f"its history tells of {said} claims, and it has {sessions} sessions.",
            )


def startable() -> Iterator[Lie]:
    """R9: a story that an idle agent could take now, and for longer than a sweep nothing happens; or one that waits and nobody said why."""
    if not foreground.server_is_running():
        return
    late = timezone.now() - ASSIGNED_WITHIN
    rows = (
        assigning.unserved()
        .filter(stage_at__lt=late)
        .select_related("project", "asked_by", "owner", "project__version")
    )
    stories = [
        s
        for s in rows[:LOOKED_AT]
        if (s.waiting_since or s.stage_at) < late and (s.stage != Stage.QA or looking.wanted(s))
    ]
    pool = choosing.Pool.look(stories)
    for story in stories:
        if gates.owed(story):
            yield Lie(
                "R9",
                f"story {story.label}",
                "its work wants the gate, and none is asked for. The server's log says why.",
            )
            continue
        try:
            agent = choosing.choose(story, pool, role=Role.QA if story.stage == Stage.QA else Role.CODER)
        except (MustWait, NoCoder):
            if not story.waiting_for:
                yield Lie("R9", f"story {story.label}", "it waits for an agent, and nothing says why.")
            continue
        yield Lie(
            "R9",
            f"story {story.label}",
            f"{agent.name} is idle and could take it, and nothing happens. The server's log says why.",
        )


def counters() -> Iterator[Lie]:
    """R11: retries and crashes stay within what is allowed."""
    for story in Story.objects.filter(retries__gt=0).select_related("project__version"):
        most = projects.active_file(story.project).max_retries
        if most and story.retries > most:
            yield Lie(
                "R11",
                f"story {story.label}",
                f"{story.retries} retries were used, of {most}. (Was max_retries lowered?)",
            )
    for story in Story.objects.filter(crashes__gt=agents_conf.CRASH_CAP).select_related("project"):
        yield Lie(
            "R11",
            f"story {story.label}",
            f"{story.crashes} of its sessions crashed, and after {agents_conf.CRASH_CAP} it is blocked.",
        )


def costs() -> Iterator[Lie]:
    """The sum of the ledger's rows is the session's, and what the ledger holds stands in the spending of its project."""
    summed = {f"{name}_sum": Sum(f"ledger__{name}", default=0) for name in SUMS}
    for session in Session.objects.annotate(**summed).order_by("-pk")[:RECENT]:
        wrong = [name for name in SUMS if getattr(session, name) != getattr(session, f"{name}_sum")]
        if wrong:
            said = ", ".join(
                f"{name} is {getattr(session, name)} and its requests say {getattr(session, f'{name}_sum')}"
                for name in wrong
            )
            yield Lie("R8", f"session {session.pk}", f"its sums are not those of its requests: {said}.")
    ledger = (
        LedgerRow.objects.order_by()
        .values_list("session__project_id", "session__project__name")
        .annotate(usd=Sum("cost_usd"))
    )
    spent = dict(Spend.objects.order_by().values_list("project_id").annotate(usd=Sum("usd")))
    for project_id, name, usd in ledger:
        if spent.get(project_id, Decimal(0)) < usd:
            yield Lie(
                "R8",
                f"project {name}",
                f"its requests cost ${usd}, and only ${spent.get(project_id, 0)} of that stand in its spending.",
            )


def dates() -> Iterator[Lie]:
    """R12: as of the pipeline's rows."""
    yield from life.ahead("sessions", Session.objects.all(), "created_at", "started_at", "ended_at")
    yield from life.ahead("requests", LedgerRow.objects.all(), "at")
