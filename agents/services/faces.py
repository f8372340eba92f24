"""What each agent does just now, and why: the one answer that pages, commands and the admin show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max, Q, QuerySet
from django.utils import timezone

from agents.models import Agent, Session
from agents.services.choosing import Pool
from agents.states import State


@dataclass(frozen=True, slots=True)
class Face:
    """`state`: free, working, paused or gone (no longer in the project file); `lamp`: what to draw: also throttled and silent.

    `since`: when its session was claimed, else when its last one ended; `why`: what a person should know of the state, or "".
    """

    agent: Agent
    state: str
    lamp: str
    session: Session | None
    since: datetime | None
    why: str


def of_agents(rows: QuerySet[Agent], look: Pool | None = None) -> list[Face]:
    """One face for each agent, in order; two queries, and one for each idle agent with a credential. `look`: taken here when none is given."""
    look, now = look or Pool.look([]), timezone.now()
    last = Max("sessions__ended_at", filter=Q(sessions__state=State.ENDED))
    agents = list(rows.select_related("project").annotate(last_ended=last))
    live = Session.objects.live().filter(agent__in=[row.pk for row in agents])
    busy = {
        each.agent_id: each
        for each in live.select_related("story__project", "project", "credential", "process").defer(
            "prompt", "entry"
        )
    }
    return [_face(row, busy.get(row.pk), look, now) for row in agents]


def _face(agent: Agent, session: Session | None, look: Pool, now: datetime) -> Face:
    if session is not None:
        lamp, why = _at_work(agent, session, now)
        return Face(agent, "working", lamp, session, session.created_at, why)
    since: datetime | None = getattr(agent, "last_ended", None)
    if not agent.configured:
        return Face(agent, "gone", "gone", None, since, "The project file no longer names it.")
    if agent.paused_for:
        who = agent.paused_by or "the server"
        return Face(agent, "paused", "paused", None, since, f"Paused by {who}: {agent.paused_for}")
    hindered = look.hindrance(agent)
    if hindered:
        return Face(agent, "paused", "paused", None, since, f"Cannot start: {hindered}")
    return Face(agent, "free", "free", None, since, "")


def _at_work(agent: Agent, session: Session, now: datetime) -> tuple[str, str]:
    """The lamp of a working agent and what is odd about its work."""
    if session.suspect_since:
        return (
            "silent",
            f"Nothing is heard of host {session.host} since {session.suspect_since:%H:%M} UTC; its work is kept for it.",
        )
    if session.stop_requested_at and session.state != State.ENDED:
        return "stopping", f"Stops: asked by {session.stop_requested_by}; its work is being saved."
    until = session.credential.throttled_until if session.credential else None
    if session.throttled or (until and until > now):
        named = f" until {until:%H:%M} UTC" if until and until > now else ""
        return "throttled", f"The provider warned that a limit is near{named}."
    if agent.paused_for:
        return "working", f"Pauses after this one: {agent.paused_for}"
    if not agent.configured:
        return "working", "The project file no longer names it: this is its last session."
    return "working", ""
