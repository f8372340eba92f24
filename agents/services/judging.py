"""The outcome class of a session's end (agents.states.Outcome), with its reason; what follows from it is `deciding`."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from typing import Any

from agents.models import Session
from agents.runtimes.base import Parser
from agents.services.progress import Watch
from agents.states import StopCause
from pipeline import conf
from pipeline.models import Process
from pipeline.models.process import ProcessState


def judge(session: Session, process: Process, parser: Parser) -> dict[str, Any]:
    """`kind`, `reason`, `until` (epoch seconds) and `detail` as JSON. A stop that was asked for is a stop, however the child took it.

    `detail`: `not_begun` (the agent was not started, or died before its first event: this charges nothing), `shared` (the budget was not
    the session's own), `server` (the server's doing, which charges nothing), else as the runtime says (runtimes.base.Outcome).
    """
    told = _told(session, process, parser)
    by_person = told["kind"] == "stopped"
    if not process.main_started and not by_person:
        return _not_begun(session, process, told)
    if not by_person and process.state != ProcessState.LOST and not conf.copy_path(session.key).exists():
        return told | {
            "kind": "workspace_lost",
            "reason": "Its working copy was removed while it worked. What it had not saved is gone; its branch is kept.",
        }
    if told["kind"] in ("crashed", "hung") and not Watch.of(process.parser_state).began:
        told |= {"kind": "not_started", "detail": "not_begun"}
    return told


def _told(session: Session, process: Process, parser: Parser) -> dict[str, Any]:
    ended = process.exit or {}
    asked = session.stop_requested_at is not None
    if ended.get("outcome") == "not_launched":
        kind = "stopped" if asked and session.stop_cause == StopCause.PERSON else "not_started"
        return {"kind": kind, "reason": str(ended.get("reason", "")), "detail": "not_begun", "until": None}
    lost = process.state == ProcessState.LOST
    told = asdict(parser.outcome(None if lost else ended))
    if asked and told["kind"] != "done":
        return told | _as_asked(session, process, told)
    if told["kind"] == "stopped":  # nobody of ours asked: the host is going down
        told |= {
            "kind": "lost",
            "detail": "server",
            "reason": "It was stopped from outside the server, as when the host shuts down.",
        }
    return told


def _as_asked(session: Session, process: Process, told: dict[str, Any]) -> dict[str, Any]:
    """Who asked for the stop, and why, says what it was."""
    cause = session.stop_cause or StopCause.PERSON
    if cause == StopCause.PERSON:
        return {
            "kind": "stopped",
            "reason": f"Stopped by {session.stop_requested_by}.",
            "detail": "",
            "until": None,
        }
    if cause == StopCause.SERVER:
        return {"kind": "lost", "reason": session.reason or "The server was shut down.", "detail": "server"}
    if told["kind"] == "rate_limited":
        return {}  # it said so itself meanwhile, and until when
    until = Watch.of(process.parser_state).until or None if cause == StopCause.RATE_LIMITED else None
    shared = cause == StopCause.BUDGET and not own_budget_used(session)
    return {
        "kind": str(cause),
        "reason": session.reason,
        "detail": "shared" if shared else "",
        "until": until,
    }


def own_budget_used(session: Session) -> bool:
    own = session.entry.get("max_budget_usd")
    return own is not None and session.cost_usd >= Decimal(str(own))


def _not_begun(session: Session, process: Process, told: dict[str, Any]) -> dict[str, Any]:
    """The runner ended before the agent's own step."""
    ended, lost = process.exit or {}, process.state == ProcessState.LOST
    if ended.get("outcome") == "not_launched":
        return told
    if lost:
        reason = "Its runner died before the agent began."
    elif session.stop_requested_at is not None:
        reason = session.reason or f"It was stopped by {session.stop_requested_by} before the agent began."
    else:
        reason = f"The step {ended.get('step', '')!r} before the agent failed (exit {ended.get('code')}); see the log."
    return told | {"kind": "lost" if lost else "not_started", "reason": reason, "detail": "not_begun"}
