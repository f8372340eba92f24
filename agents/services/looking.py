"""Agents that do not code: a qa agent looks at a story in QA, a mergemaster mends one that would not merge, others look on.

They attach where the story stands and never move it by their start. What follows from their end is small here: after a qa agent a person
approves or rejects; what a mergemaster changed is merged again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents import conf as agents_conf
from agents.models import Session
from agents.states import Outcome, Role, State
from pipeline import moves
from pipeline.actors import SERVER
from pipeline.models import Story
from pipeline.services import gates, projectfiles
from pipeline.stages import Stage

if TYPE_CHECKING:
    from agents.services.deciding import Decision

FINISHED = (Outcome.DONE, Outcome.NO_CHANGE, Outcome.TURN_LIMIT, Outcome.BUDGET, Outcome.WALL_LIMIT)
FREE = (Outcome.NOT_STARTED, Outcome.RATE_LIMITED, Outcome.OVERLOADED)
"""Ends that are not counted as a try."""


def wanted(story: Story) -> bool:
    """Whether a qa agent is still to look at a story in QA: its mode says so, none has since it came, and tries are left."""
    if gates.qa_mode(story, projectfiles.held_file(story.project)) != "agent":
        return False
    looks = story.sessions.filter(role=Role.QA, created_at__gte=story.stage_at, state=State.ENDED)
    if looks.filter(outcome__in=FINISHED).exists():
        return False
    return looks.exclude(outcome__in=FREE).count() < agents_conf.CRASH_CAP


def masters(project_id: int) -> set[int]:
    """The stories of a project that a mergemaster works on: the merge queue leaves them alone."""
    rows = Session.objects.live().filter(project_id=project_id, role=Role.MERGEMASTER)
    return set(rows.values_list("story_id", flat=True))


def concluded(story: Story, session: Session, outcome: str, decision: Decision, work: dict[str, Any]) -> None:
    """What the end of such a session means for its story, which the caller has locked; its fence is still the session's."""
    reason = decision.reason
    who = f"{session.agent.name} (session {session.pk})"
    why = f"session {session.pk} of {session.agent.name}: {reason or outcome}"
    moves.note(story, "session_ended", actor=SERVER, why=why)
    rows = Story.objects.filter(pk=story.pk)
    if session.role == Role.QA and story.stage == Stage.QA:
        if outcome == Outcome.STOPPED:
            rows.update(held_for=story.held_for or f"stopped by {session.stop_requested_by or 'the server'}")
        elif decision.until is not None:
            until = f"{decision.until:%H:%M:%S} UTC"
            rows.update(not_before=decision.until, waiting_for=f"{reason} It goes on by itself at {until}.")
        elif outcome in FINISHED:
            rows.update(waiting_for=f"{who} has looked at it: read what it says, then approve or reject it.")
        elif not wanted(story) and outcome not in FREE:
            rows.update(waiting_for=f"{who} could not look at it: {reason} Approve or reject it by hand.")
    elif session.role == Role.MERGEMASTER and story.stage in (Stage.MERGE, Stage.MERGE_FAILURE):
        changed = bool(work.get("tip")) and work.get("tip") != session.began_at_commit
        if changed and outcome != Outcome.STOPPED and story.stage == Stage.MERGE_FAILURE:
            moves.move(story, "retry_merge", actor=SERVER, why=f"{who} changed the work")
