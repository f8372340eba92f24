"""What follows from the end of a session: one pure table, and the transaction that carries it out.

One rule of charges: a retry is charged for a red gate or for no change; crashed, hung and lost count against a cap of their own; provider
and server faults charge nothing (issue: Rate limits; agent-runtimes.md 10).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from django.db.models import F
from django.utils import timezone

from agents import conf as agents_conf
from agents.models import Session
from agents.services import logins, looking
from agents.states import Role
from pipeline import conf, events, moves, taskqueue
from pipeline.actors import SERVER
from pipeline.git.control import read_ref, set_story_branch
from pipeline.models import GateRun, Story
from pipeline.processes.crashpoint import crashpoint
from pipeline.services import gates, processes, projects
from pipeline.stages import Stage

Next = Literal["gate", "retry", "crash", "again", "hold", "wait", "block"]


@dataclass(frozen=True, slots=True)
class Decision:
    """`next`: gate; retry, crash (charged) or again (free): another session; hold; wait until `until`; block with `reason`."""

    next: Next
    reason: str = ""
    until: datetime | None = None


def decide(kind: str, reason: str, *, changed: bool, until: float | None, now: datetime) -> Decision:
    """The table. `changed`: the saved work differs from the base."""
    if kind == "stopped":
        return Decision("hold", reason)
    if kind in ("done", "turn_limit", "budget"):
        if changed:
            return Decision("gate", reason)
        return Decision("retry", "The session ended without any change.")
    if kind in ("rate_limited", "overloaded"):
        at = (
            datetime.fromtimestamp(until, tz=UTC)
            if until
            else now + timedelta(seconds=agents_conf.PROVIDER_WAIT_SECONDS)
        )
        return Decision("wait", reason, at)
    if kind in ("crashed", "hung", "lost", "output_limit"):
        return Decision("crash", reason)
    if kind == "not_started":
        return Decision("again", reason)
    return Decision("block", reason)  # auth, billing, bad_model, context_full, config: a person is needed


def conclude(session: Session, said: dict[str, Any] | None) -> None:
    """The outcome transaction: terminal state, release, next intent and history together. `said`: what the intake said; None = no copy."""
    from agents.services import sessions

    told = session.told or {"kind": "lost", "reason": "Nothing is known of its end."}
    work = (said or {}).get("result") or {}
    refused = (said or {}).get("refused")
    kind, reason = str(told["kind"]), str(told.get("reason") or "")
    decision = decide(
        kind, reason, changed=bool(work.get("changed")), until=told.get("until"), now=timezone.now()
    )
    outcome = "no_change" if decision.next == "retry" and kind == "done" else kind
    if refused is not None and kind != "stopped":
        decision = Decision(
            "block", f"Its work could not be taken in: {refused.get('message', '')} Its working copy is kept."
        )
    elif said is not None and "failed" in said:
        decision = Decision(
            "block",
            f"Its work could not be saved: {said['failed']} Its working copy is kept at {conf.copy_path(session.key).name}.",
        )
    saved = str(work.get("tip") or "")
    if not sessions.close(session, outcome=outcome, reason=decision.reason or reason, saved=saved):
        return
    if saved or said is None:  # without a copy there may be half of one, and its base is pinned
        processes.prepare("discard", project=session.project, request={"copy": session.key})
    story = Story.objects.select_for_update(of=("self",)).select_related("project").get(pk=session.story_id)
    current = story.fence == session.fence
    works = session.role in (
        Role.CODER,
        Role.MERGEMASTER,
    )  # what others change is kept, and is not the story's
    if saved and works and (current or story.held_for or story.stage == Stage.BACKLOG):
        Story.objects.filter(pk=story.pk).update(tip=saved)
        story.tip = saved
        follow_branch(story)
    if current and story.stage == Stage.CODING and session.role == Role.CODER:
        carry_out(story, session, decision, work)
    elif current and session.role != Role.CODER:
        looking.concluded(story, session, outcome, decision, work)
    else:
        moves.note(
            story,
            "session_ended",
            actor=SERVER,
            why=f"session {session.pk}: {outcome}; the story has moved on meanwhile",
        )
    crashpoint("outcome-inside-transaction")
    events.record(story.project_id, "session", story=story, text=f"session {session.pk} ended: {outcome}")
    taskqueue.enqueue("agents.tasks.assign", story.project_id)


def follow_branch(story: Story) -> None:
    """The story's branch in the control repository follows its newest work; a move that is lost is made by the next one."""
    control = conf.control_path(story.project.key)
    ref = f"refs/heads/{story.branch}"
    set_story_branch(control, story.branch, story.tip, read_ref(control, ref))


def carry_out(story: Story, session: Session, decision: Decision, work: dict[str, Any]) -> None:
    """Rows for what comes next. The caller holds the story's row."""
    rows = Story.objects.filter(pk=story.pk)
    why = f"session {session.pk} of {session.agent.name}: {decision.reason or 'ended'}"
    if decision.next == "gate":
        rows.update(next_prompt="", next_kind="", crashes=0)
        moves.note(
            story,
            "session_ended",
            actor=SERVER,
            why=f"{why} ({work.get('commits', 0)} commits, {len(work.get('files', []))} files)",
        )
        gates.request_gate(story, purpose="coding", commit=story.tip)
    elif decision.next == "retry":
        charge(story, decision.reason, kind="nothing")
    elif decision.next == "crash":
        rows.update(crashes=F("crashes") + 1, **_goes_on(story, decision.reason))
        if story.crashes + 1 >= agents_conf.CRASH_CAP:
            block(
                story,
                f"{story.crashes + 1} sessions ended before their work was done; the last: {decision.reason} Look at its output, then unblock it.",
            )
        else:
            moves.note(story, "session_ended", actor=SERVER, why=why)
    elif decision.next == "again":
        not_begun(story, decision.reason, why)
    elif decision.next == "wait":
        rows.update(
            **_goes_on(story, decision.reason),
            not_before=decision.until,
            waiting_for=f"{decision.reason} It goes on by itself at {decision.until:%H:%M:%S} UTC.",
        )
        moves.note(story, "session_ended", actor=SERVER, why=why)
    elif decision.next == "hold":
        rows.update(held_for=story.held_for or f"stopped by {session.stop_requested_by or 'the server'}")
        moves.note(story, "session_ended", actor=SERVER, why=why)
    else:
        if (session.told or {}).get("kind") in ("auth", "billing"):
            logins.pause(session, decision.reason)
        block(story, decision.reason)


def not_begun(story: Story, reason: str, why: str) -> None:
    """A session that ended before its agent began charges nothing; it is tried again at once, then ever later, then people are asked."""
    last = story.sessions.order_by("-id").values_list("outcome", flat=True)[: agents_conf.NOT_BEGUN_CAP]
    times = len(list(itertools.takewhile(lambda outcome: outcome == "not_started", last)))
    if times >= agents_conf.NOT_BEGUN_CAP:
        block(story, f"The agent could not be started {times} times: {reason} Mend that, then unblock it.")
        return
    wait = timedelta(seconds=0 if times < 2 else 2**times)
    Story.objects.filter(pk=story.pk).update(
        not_before=timezone.now() + wait, waiting_for=f"The last start failed: {reason}"
    )
    moves.note(story, "session_ended", actor=SERVER, why=why)


def _goes_on(story: Story, cause: str) -> dict[str, str]:
    """What the next session is told when this one ended early: what it was told itself, else that it goes on."""
    return {} if story.next_prompt else {"next_prompt": cause, "next_kind": "continue"}


def charge(story: Story, why: str, *, kind: str, prompt: str = "") -> None:
    """One retry is used; when none is left the story is blocked with the reason."""
    most = projects.active_file(story.project).max_retries
    if most and story.retries >= most:
        block(
            story,
            f"{why} That was the last of {most} retries. Look at the output, change the story or the code, then unblock it.",
        )
        return
    Story.objects.filter(pk=story.pk).update(
        retries=F("retries") + 1, next_prompt=prompt or why, next_kind=kind
    )
    moves.note(
        story,
        "retry",
        actor=SERVER,
        why=f"{why} Retry {story.retries + 1}" + (f" of {most}." if most else "."),
    )


def block(story: Story, reason: str) -> None:
    story.refresh_from_db()
    moves.move(story, "block", actor=SERVER, why=reason, reason=reason or "It cannot go on without a person.")


def after_red_gate(run: GateRun) -> None:
    """A gate on a coder's work is over and was not green: the same agent gets the failure text, while retries last."""
    story = Story.objects.select_for_update(of=("self",)).select_related("project").get(pk=run.story_id)
    if run.verdict == "errored":
        block(story, f"The gate could not be run: {run.reason} Mend that, then unblock it.")
    else:
        what = f"The gate did not pass on {run.commit[:8]}: {run.reason}"
        charge(story, what, kind="gate", prompt=f"{run.reason}\n\n{run.output}")
    taskqueue.enqueue("agents.tasks.assign", story.project_id)
