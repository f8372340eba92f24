"""How sessions, agents and credentials look as JSON, and what a story's shape says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet, Sum

from agents.models import Agent, Credential, PermissionRequest, Session
from agents.services import faces, reaching, using
from agents.states import State
from pipeline import shapes
from pipeline.logevents import LogEvent
from pipeline.models import Story


def register() -> None:
    if work_of not in shapes.enrichers:
        shapes.enrichers.append(work_of)


def work_of(stories: Sequence[Story]) -> dict[int, dict[str, Any]]:
    """For each story: `agent` and `session` of the live session, else of the last one; `cost_usd` of all together."""
    found: dict[int, dict[str, Any]] = {}
    rows = Session.objects.filter(story__in=[row.pk for row in stories])
    for session in rows.select_related("agent").only("story_id", "state", "agent__name").order_by("id"):
        told = found.setdefault(session.story_id, {"live": False})
        live = session.state != State.ENDED
        if live or not told["live"]:
            told |= {"agent": session.agent.name, "session": session.pk, "live": live}
    costs = rows.order_by().values_list("story").annotate(cost=Sum("cost_usd")).values_list("story", "cost")
    for story_id, cost in costs:
        if story_id in found:  # a session that was claimed since the first query is told by the next look
            found[story_id]["cost_usd"] = shapes.money(cost)
    for told in found.values():
        del told["live"]
    return found


def session(row: Session) -> dict[str, Any]:
    """Times in ISO 8601 (UTC) or null; `tokens` of all kinds together; `peak_memory` in bytes; `story` as PROJECT/N;
    `resume`: warm or cold, and why; `sandbox`: its rung of the ladder; `network`: on, off or {"allow": [hosts]}; `key`: what the agent sees of it."""
    return {
        "id": row.pk,
        "story": row.story.label,
        "agent": row.agent.name,
        "role": row.role,
        "state": row.state,
        "outcome": row.outcome or None,
        "reason": row.reason or None,
        "stop_cause": row.stop_cause or None,
        "stopped_by": row.stop_requested_by or None,
        "turns": row.turns,
        "tool_turns": row.tool_turns,
        "peak_memory": row.peak_memory,
        "throttled": row.throttled,
        "snapshot": row.snapshot or None,
        "warned": row.warned_at.isoformat() if row.warned_at else None,
        "fence": row.fence,
        "conversation": row.conversation,
        "resume": row.resume_note or None,
        "sandbox": row.sandbox or None,
        "network": reaching.network_of(row).to_json(),
        "key": reaching.key_note(row),
        "tokens": row.tokens,
        "cost_usd": shapes.money(row.cost_usd),
        "started": row.started_at.isoformat() if row.started_at else None,
        "ended": row.ended_at.isoformat() if row.ended_at else None,
    }


def request(row: PermissionRequest) -> dict[str, Any]:
    """What an agent asks: `state` waiting, allowed, denied, timed_out or withdrawn; `by` a person, a rule or the server; `told`: when it heard."""
    return {
        "id": row.pk,
        "session": row.session_id,
        "tool": row.tool,
        "subject": row.subject,
        "arguments": row.arguments,
        "state": row.state,
        "scope": row.scope or None,
        "by": row.answered_by or None,
        "reason": row.reason or None,
        "asked": row.asked_at.isoformat(),
        "deadline": row.deadline.isoformat(),
        "told": row.told_at.isoformat() if row.told_at else None,
    }


def agents(rows: QuerySet[Agent]) -> list[dict[str, Any]]:
    """`state`: free, working, paused or gone (no longer in the project file); `story`: what it works on, or null; `why`: what is odd, or null."""
    return [
        {
            "name": face.agent.name,
            "project": face.agent.project.name,
            "role": face.agent.role,
            "runtime": face.agent.runtime,
            "model": face.agent.model or None,
            "state": face.state,
            "story": face.session.story.label if face.session else None,
            "session": face.session.pk if face.session else None,
            "since": face.since.isoformat() if face.since else None,
            "throttled": face.lamp == "throttled",
            "why": face.why or None,
        }
        for face in faces.of_agents(rows)
    ]


def limit(row: using.Use) -> dict[str, Any]:
    """`name` null: each subject that has no limit of its own; `used` then is the busiest one's."""
    return {
        "scope": row.scope,
        "name": row.name or None,
        "most": row.most,
        "used": row.used,
        "note": row.note or None,
    }


def budget(row: using.Spent) -> dict[str, Any]:
    """Dollars as decimal strings; null = not limited."""
    return {
        "scope": row.scope,
        "name": row.name or None,
        "period": row.period,
        "usd": shapes.money(row.usd) if row.usd is not None else None,
        "tokens": row.tokens,
        "spent_usd": shapes.money(row.spent_usd),
        "spent_tokens": row.spent_tokens,
        "note": row.note or None,
    }


def credential(row: Credential) -> dict[str, Any]:
    """Never the value."""
    return {
        "name": row.name,
        "kind": row.kind,
        "base_urls": row.base_urls,
        "paused_for": row.paused_for or None,
    }


def log_event(row: LogEvent) -> dict[str, Any]:
    return {"seq": row.seq, "kind": row.kind, "body": row.body, "at": row.at.isoformat()}
