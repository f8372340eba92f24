"""Waiting for the end of a session or a story, and the report of how it ended. Any kind of end counts: done, stopped, killed, lost, deleted.

The rows are asked, a few times a second, with one small query: no nudge that could be missed stands between an end and who waits for it.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from agents.exceptions import StillRunning
from agents.models import Session
from agents.services import looking
from agents.states import State
from pipeline import conf, logevents
from pipeline.models import GateRun, Story
from pipeline.services import gates
from pipeline.shapes import money
from pipeline.stages import ACTIVE, Stage

LOOK_SECONDS = 0.2
TAIL_LINES = 40
TAIL_CHARACTERS = 8_000


def wait(what: Session | Story, seconds: float | None = None) -> dict[str, Any]:
    """Block until the end, at most `seconds` (None = as long as it takes); the completion report. Raises StillRunning."""
    until = None if seconds is None else time.monotonic() + seconds
    known = report(what)
    while not over(what):
        if until is not None and time.monotonic() >= until:
            raise StillRunning(
                f"{name_of(what)} has not ended within {seconds:g} s; it goes on. Wait again, or stop it."
            )
        time.sleep(LOOK_SECONDS if until is None else max(0.0, min(LOOK_SECONDS, until - time.monotonic())))
    return report(what) or {**known, "outcome": "deleted", "reason": f"{name_of(what)} was deleted."}


def over(what: Session | Story) -> bool:
    """A session: ended, and the gate on its work too. A story: nothing of it goes on by itself, or it is gone."""
    if isinstance(what, Session):
        row = Session.objects.filter(pk=what.pk).values_list("state", "saved", "story_id").first()
        if row is None:
            return True
        if row[0] != State.ENDED:
            return False
        running = GateRun.objects.filter(story_id=row[2], commit=row[1]).exclude(state="over")
        return not (row[1] and running.exists())
    story = Story.objects.select_related("project").filter(pk=what.pk).first()
    if story is None:
        return True
    if Session.objects.live().filter(story=story).exists() or gates.live_run(story) is not None:
        return False
    if story.stage not in ACTIVE or story.held_for or story.frozen or story.needs_approval:
        return True
    return story.stage == Stage.QA and not looking.wanted(story)  # then a person is asked


def report(what: Session | Story) -> dict[str, Any]:
    """How it stands: {"story", "stage", "session", "agent", "outcome", "reason", "gate", "output", "conversation", "worktree", "commits", ...}.

    `gate`: {"run", "verdict", "reason"} of the last run on its work, or null; `worktree`: the copy's folder while it exists; `output`: the
    end of what was said; `commits`: what it saved, and what landed. Empty when the row is gone.
    """
    if isinstance(what, Session):
        session = _session(pk=what.pk)
        story = session.story if session else None
    else:
        story = Story.objects.select_related("project").filter(pk=what.pk).first()
        session = _session(story=story) if story else None
    if story is None:
        return {}
    of_story = isinstance(what, Story)
    runs = story.gate_runs.order_by("-id")
    run = runs.first() if of_story or session is None else runs.filter(commit=session.saved or "-").first()
    told: dict[str, Any] = {
        "story": story.label,
        "stage": story.stage,
        "session": None,
        "agent": None,
        "outcome": story.stage if of_story else None,
        "reason": story.reason or story.held_for or story.needs_approval or story.waiting_for or None,
        "gate": {"run": run.pk, "verdict": run.verdict or None, "reason": run.reason or None}
        if run
        else None,
        "output": "",
        "conversation": None,
        "worktree": None,
        "commits": [story.landed] if story.landed and of_story else [],
        "tokens": 0,
        "cost_usd": money(_cost(story)) if of_story else "0.000000",
    }
    return told | (_of_session(session, of_story=of_story) if session else {})


def _of_session(session: Session, *, of_story: bool) -> dict[str, Any]:
    copy = conf.copy_path(session.key)
    told: dict[str, Any] = {
        "session": session.pk,
        "agent": session.agent.name,
        "output": tail(session),
        "conversation": session.conversation,
        "worktree": str(copy) if copy.exists() else None,
    }
    if of_story:
        story = session.story
        told["commits"] = [each for each in (session.saved, story.landed) if each]
        told["tokens"] = sum(each.tokens for each in story.sessions.all())
        return told
    return told | {
        "outcome": session.outcome or None,
        "reason": session.reason or None,
        "commits": [session.saved] if session.saved else [],
        "tokens": session.tokens,
        "cost_usd": money(session.cost_usd),
    }


def tail(session: Session) -> str:
    """The end of what the agent said and its tools printed, bounded."""
    if session.process_id is None:
        return ""
    said = logevents.last(session.process_id, TAIL_LINES, ("text", "line", "output", "tool_end"))
    texts = [str(event.body.get("text") or "") for event in said]
    return "\n".join(text for text in texts if text)[-TAIL_CHARACTERS:]


def _cost(story: Story) -> Decimal:
    return sum(story.sessions.values_list("cost_usd", flat=True), Decimal(0))


def name_of(what: Session | Story) -> str:
    return f"Session {what.pk}" if isinstance(what, Session) else f"Story {what.label}"


def _session(**of: Any) -> Session | None:
    return Session.objects.filter(**of).select_related("story__project", "agent").order_by("-id").first()
