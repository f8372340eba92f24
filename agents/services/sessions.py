"""The life of a session after its claim: launch, following, saving its work, ending.

Each step is a process under a runner with a row of its own, so that any of them may die: the agent (kind `agent`), then the intake of its
work (kind `intake`), then the outcome in one transaction. Only states.ARROWS are walked, by `walk`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from agents import conf as agents_conf
from agents.exceptions import MustWait
from agents.models import Agent, Session
from agents.runtimes.base import LaunchRefused, ProgramMissing
from agents.services import (
    booking,
    conversations,
    deciding,
    ingesting,
    judging,
    ordering,
    permissions,
    saving,
    telling,
)
from agents.states import ARROWS, State, StopCause
from pipeline import conf, events, kinds, taskqueue
from pipeline.exceptions import Refused
from pipeline.logevents import NewEvent
from pipeline.models import Process, Project, Story
from pipeline.models.process import ProcessState
from pipeline.models.story import lock_story
from pipeline.prepared import Select
from pipeline.processes import confine
from pipeline.processes.logfile import Record
from pipeline.projectfile.network import Network
from pipeline.services import processes, projects

logger = logging.getLogger("huskies.sessions")


def walk(session: Session, state: State, **values: Any) -> bool:
    """Move a session along an arrow, by compare-and-set; False when it is no longer where the arrow begins."""
    sources = [source for source, targets in ARROWS.items() if state in targets]
    changed = Session.objects.filter(pk=session.pk, state__in=sources).update(state=state, **values)
    if changed:
        session.state = state
        for name, value in values.items():
            setattr(session, name, value)
    return bool(changed)


def confinement_for(project: Project, entry: Mapping[str, Any]) -> str:
    """The level (confine.LADDER) that a session of the project's agent runs at: the strongest of this host, lower only if an admin allows
    it. Raises MustWait."""
    level, network = confine.level_available(), Network.from_json(entry.get("network"))
    allowed, wanted = projects.unconfined_allowed(project), entry.get("sandbox") or "bubblewrap"
    if level.name == "bubblewrap" and (wanted == "bubblewrap" or not allowed):
        if wanted != "bubblewrap":
            raise MustWait(
                f"its `sandbox: {wanted}` is less than this host can do, and an admin has not allowed project {project.name} to run "
                "agents without confinement"
            )
        return "bubblewrap" if network.is_on else "bubblewrap+network"
    if not allowed:
        raise MustWait(
            f"agents cannot be confined here: {level.reason} Or an admin allows project {project.name} to run without (edits only)"
        )
    if not network.is_on:
        raise MustWait(
            f"its `network: {network.mode}` can only be kept within bubblewrap. {level.reason}".strip()
        )
    return "none" if wanted == "none" else "limits"


def last_saved(story: Story) -> str:
    """The newest work on the story's present base that a session left, "" if there is none; what the next session begins from.

    A reopened story has a new base: what it did before is on the branch already.
    """
    if not story.base:
        return ""
    row = SAVED.first(story.pk, story.base)
    return row[0] if row else ""


SAVED: Select[tuple[str]] = Select(
    lambda story, base: (
        Session.objects.filter(story=story, base=base)
        .exclude(saved="")
        .order_by("-id")
        .values_list("saved")[:1]
    ),
    int,
    str,
)


def conversation_to_resume(story: Story, agent: Agent) -> Session | None:
    """The session whose conversation a new one of this agent goes on with (conversations.py)."""
    return conversations.to_resume(story, agent).session


# -- stop ----------------------------------------------------------------------------------------------------------


def request_stop(session: Session, *, by: str, cause: StopCause = StopCause.PERSON, why: str = "") -> bool:
    """Write down that it must stop (crash window 26); `carry_out_stop` does it, and the sweep repeats it. False when that was known.

    `why` is the sentence that people read. A person's stop takes the place of the server's own, never the reverse.
    """
    rows = Session.objects.live().filter(pk=session.pk)
    asked = {"stop_requested_by": by, "stop_cause": cause, "reason": why}
    changed = rows.filter(stop_requested_at=None).update(stop_requested_at=timezone.now(), **asked)
    if not changed and cause == StopCause.PERSON:
        changed = rows.exclude(stop_cause=StopCause.PERSON).update(**asked)
    taskqueue.enqueue("agents.tasks.stop", session.pk)
    return bool(changed)


def carry_out_stop(session_id: int) -> None:
    """Ask the runner to stop; a launch that has not happened yet never happens. Idempotent."""
    session = Session.objects.select_related("process").filter(pk=session_id).first()
    if (
        session is None
        or session.state == State.ENDED
        or session.stop_requested_at is None
        or session.process is None
    ):
        return
    if session.process.state == ProcessState.PREPARED:
        processes.reclaim(session.process, f"it was stopped by {session.stop_requested_by} before it began")
    elif session.process.state == ProcessState.RUNNING:
        processes.stop(
            session.process,
            grace=agents_conf.STOP_GRACE_SECONDS,
            reason=session.reason or f"stopped by {session.stop_requested_by}",
        )


def sweep() -> None:
    """What a dead task left: stops that were not heard, ends that were not concluded."""
    for pk in Session.objects.live().exclude(stop_requested_at=None).values_list("pk", flat=True):
        carry_out_stop(pk)


# -- the agent's own process -----------------------------------------------------------------------------------------

TO_LAUNCH: Select[Session] = Select(
    lambda process: Session.objects.select_related(
        "story__project", "project", "agent", "credential", "started_by"
    ).filter(process=process),
    int,
)
WITH_STORY: Select[Session] = Select(
    lambda process: Session.objects.select_related("story").filter(process=process), int
)
STORY_OF: Select[tuple[int]] = Select(
    lambda process: Session.objects.filter(process=process).values_list("story_id"), int
)
LOCKED: Select[Session] = Select(
    lambda process: (
        Session.objects.select_for_update(of=("self",), no_key=True)
        .select_related("story", "project", "agent")
        .filter(process=process)
    ),
    int,
)


class AgentHandler(kinds.Handler):
    def spec(self, process: Process) -> dict[str, Any]:
        [session] = TO_LAUNCH(process.pk)
        if session.stop_requested_at is not None:
            raise Refused(f"It was stopped by {session.stop_requested_by} before it began.")
        if not walk(session, State.STARTING) and session.state != State.STARTING:
            raise Refused(f"Session {session.pk} is {session.state}; it is not started again.")
        try:
            return ordering.agent_spec(session)
        except LaunchRefused as error:
            Session.objects.filter(pk=session.pk).update(
                told={
                    "kind": "config",
                    "reason": str(error),
                    "detail": "program" if isinstance(error, ProgramMissing) else "not_begun",
                }
            )
            raise Refused(str(error)) from error

    def records(self, process: Process, records: Sequence[Record]) -> list[NewEvent]:
        return ingesting.events_of(process, records)

    def started(self, process: Process) -> None:
        [session] = WITH_STORY(process.pk)
        if walk(session, State.RUNNING, started_at=timezone.now()):
            telling.begun(session)
            events.record(
                session.project_id, "session", story=session.story, text=f"session {session.pk} runs"
            )

    def stored(self, process: Process, new: Sequence[NewEvent], first_seq: int) -> None:
        booking.book(process, new, first_seq)
        permissions.take(process, new)
        telling.take(process, new)

    def ended(self, process: Process) -> None:
        """The child is dead and its log is stored: judge the end, then save its work."""
        ingesting.forget(process)
        [(story_id,)] = STORY_OF(process.pk)
        lock_story(story_id)
        [session] = LOCKED(process.pk)
        if session.state == State.ENDED:
            return processes.finish(process)
        session.process = process
        told = session.told or judging.judge(session, process, ingesting.parser_of(process))
        if not walk(session, State.STOPPING, told=told):
            Session.objects.filter(pk=session.pk).update(told=told)
            session.told = told
        permissions.withdraw(session)
        if said := saving.saved(session, process):
            deciding.conclude(session, said)
        elif conf.copy_path(session.key).exists():
            session.saving = saving.prepare_intake(session, tries=0)
            Session.objects.filter(pk=session.pk).update(saving=session.saving)
            events.record(session.project_id, "session", story=session.story)
        else:
            deciding.conclude(session, None)
        return processes.finish(process)


def close(session: Session, *, outcome: str, reason: str, saved: str) -> bool:
    """The one way to `ended`: outcome, reason and release of the claim in the caller's transaction."""
    assert transaction.get_connection().in_atomic_block  # noqa: S101
    note = session.resume_note or "cold: its agent never began"
    done = walk(
        session,
        State.ENDED,
        resume_note=note,
        outcome=outcome,
        reason=reason,
        saved=saved,
        ended_at=timezone.now(),
    )
    if done:
        permissions.withdraw(session)
        telling.given_back(session)
        logger.info(
            "Session %s on story %s ended: %s. %s",
            session.pk,
            session.story_id,
            outcome,
            json.dumps(reason),
            extra={"action": "session_ended", "session_id": session.pk, "story_id": session.story_id},
        )
    return done
