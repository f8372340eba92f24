"""Which conversation a session goes on with: that of the same agent, runtime and model on the same story, while it is any good.

The one place of that rule. An id that the program refused, or that grew too long, is never tried again: the next session begins a new
conversation with the whole story. A session that ended before its agent said anything tells nothing about the conversation it was to go on
with, so the one before it counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from agents.models import Agent, Session
from agents.states import Outcome, State
from pipeline.models import Story
from pipeline.prepared import Select

LOOKS_BACK = 20
REFUSED = ("conversation_missing", "conversation_in_use")
"""Details of an end (runtimes.base.Outcome): the program did not take the id."""
SILENT = ("not_begun", "program")
"""Details of an end before the agent's first event."""


class Resume(NamedTuple):
    """`session`: the one whose conversation goes on, None = a new one; `why`: a sentence that says warm or cold, and why."""

    session: Session | None
    why: str


COLUMNS = ("key", "told", "started_at", "created_at", "runtime", "model", "conversation")
LAST: Select[Session] = Select(
    lambda story, agent: (
        Session.objects.filter(story=story, agent=agent, state=State.ENDED)
        .order_by("-id")
        .only(*COLUMNS)[:LOOKS_BACK]
    ),
    int,
    int,
)


def to_resume(story: Story, agent: Agent, *, session: Session | None = None) -> Resume:
    """For the agent as it is now, or as it was claimed for `session`. One query."""
    runtime, model = (session or agent).runtime, (session or agent).model
    for last in LAST(story.pk, agent.pk):
        told = last.told or {}
        if told.get("detail") in REFUSED:
            return Resume(None, f"cold: the program did not take up the conversation of session {last.pk}")
        if told.get("kind") == Outcome.CONTEXT_FULL:
            return Resume(None, f"cold: the conversation of session {last.pk} grew too long")
        if not spoke(told, last.started_at):
            continue
        if told.get("kind") == Outcome.CONFIG:
            return Resume(None, f"cold: the conversation of session {last.pk} was refused by the provider")
        if last.runtime != runtime:
            return Resume(
                None,
                f"cold: {agent.name} runs with {runtime} now, and session {last.pk} ran with {last.runtime}",
            )
        if last.model != model:
            was, now = last.model or "the default model", model or "the default model"
            return Resume(None, f"cold: {agent.name} has {now} now, and session {last.pk} had {was}")
        return Resume(last, f"warm: it goes on with the conversation of session {last.pk}")
    return Resume(None, f"cold: there is no conversation of {agent.name} on this story yet")


def spoke(told: Mapping[str, Any], started_at: datetime | None) -> bool:
    """Whether the agent of an ended session began: it had its prompt."""
    return started_at is not None and told.get("detail") not in SILENT
