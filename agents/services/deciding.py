"""What follows from the end of a session: one pure table, and the transaction that carries it out.

One rule of charges: a retry is charged for a red gate or for no change; crashed, hung and lost count against a cap of their own; provider
and server faults, and a session that died before its first event, charge nothing. Sessions that end by themselves without any change are
counted besides: too many in a row without a new file read, or too many in all, and people are asked.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from django.db.models import F
from django.utils import timezone

from agents import conf as agents_conf
from agents.models import Session
from agents.services import breaker, looking, plans, progress, snapshots
from agents.services.progress import Watch
from agents.states import Outcome, Role
from pipeline import conf, events, moves, taskqueue
from pipeline.actors import SERVER
from pipeline.git.control import read_ref, set_story_branch
from pipeline.git.reading import tree_of
from pipeline.models import GateRun, Story
from pipeline.prepared import Select
from pipeline.processes.crashpoint import crashpoint
from pipeline.services import gates, processes, projects
from pipeline.stages import Stage

Next = Literal["gate", "retry", "crash", "again", "hold", "wait", "block"]
Opens = Literal["", "credential", "limit", "agent", "runtime"]
LIMITS = (Outcome.TURN_LIMIT, Outcome.BUDGET, Outcome.WALL_LIMIT)
CRASHES = (Outcome.CRASHED, Outcome.HUNG, Outcome.OUTPUT_LIMIT, Outcome.MEMORY_LIMIT, Outcome.DISK_LIMIT)
FREE_DETAILS = ("not_begun", "server")
"""Free ends of which so many in a row are a fault of their own (NOT_BEGUN_CAP)."""
NEW_CONVERSATION = ("conversation_missing", "conversation_in_use")


@dataclass(frozen=True, slots=True)
class End:
    """An end as the table sees it. `kind`, `detail`, `until` as judged (agents.services.judging).

    `changed`: the saved work differs from the base; `moved`: from what the session began with; `committed`: it had moved, and committed
    all of that itself; `resumed`: it went on with a conversation.
    """

    kind: str
    reason: str = ""
    detail: str = ""
    until: float | None = None
    changed: bool = False
    moved: bool = False
    committed: bool = False
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """`next`: gate; retry, crash (charged) or again (free): another session; hold; wait until `until`; block with `reason`.

    `opens`: which circuit breaker opens with it. `survived`: the end was abnormal, but its committed work is judged. `idle`: it ended by
    itself and left everything as it was.
    """

    next: Next
    reason: str = ""
    until: datetime | None = None
    opens: Opens = ""
    survived: bool = False
    idle: bool = False


def decide(end: End) -> Decision:
    """The table. Total: every outcome has a line, and anything else is for a person."""
    kind, reason = end.kind, end.reason
    if kind == Outcome.STOPPED:
        return Decision("hold", reason)
    if kind in (Outcome.NOT_STARTED, Outcome.HOST_LOST) or end.detail == "server":
        return Decision("again", reason)
    if kind in (Outcome.RATE_LIMITED, Outcome.OVERLOADED):
        return Decision("wait", reason, opens="limit" if kind == Outcome.RATE_LIMITED else "")
    if kind in (Outcome.AUTH, Outcome.BILLING):
        return Decision("block", reason, opens="credential")
    if kind == Outcome.BAD_MODEL:
        return Decision("block", reason, opens="agent")
    if kind == Outcome.CONFIG:
        if end.resumed and end.detail in NEW_CONVERSATION:
            return Decision("again", reason)
        return Decision("block", reason, opens="runtime" if end.detail == "program" else "")
    if kind == Outcome.CONTEXT_FULL:
        if end.committed:
            return Decision("gate", reason, survived=True)
        return Decision("again" if end.resumed else "block", reason)
    if kind in (Outcome.LOST, Outcome.WORKSPACE_LOST):
        return Decision("again" if end.detail == "not_begun" else "crash", reason)
    if kind in CRASHES:
        return Decision("gate", reason, survived=True) if end.committed else Decision("crash", reason)
    if kind in (Outcome.DONE, Outcome.NO_CHANGE):
        if end.changed:
            return Decision("gate", reason, idle=not end.moved)
        return Decision("retry", "The session ended without any change.", idle=not end.moved)
    if kind in LIMITS:
        if end.changed:
            return Decision("gate", reason)
        if kind == Outcome.WALL_LIMIT:
            return Decision("crash", reason)
        return (
            Decision("again", reason)
            if end.detail == "shared"
            else Decision("retry", f"{reason} It had changed nothing.")
        )
    return Decision("block", reason)


def end_of(session: Session, told: dict[str, Any], work: dict[str, Any]) -> End:
    """What the table is asked: the judged end and what the intake found."""
    moved = False
    if work.get("tip"):
        began = session.began_at_commit or session.base
        moved = work["tip"] != began and work.get("tree") != tree_of(
            conf.control_path(session.project.key), began
        )
    return End(
        kind=str(told["kind"]),
        reason=str(told.get("reason") or ""),
        detail=str(told.get("detail") or ""),
        until=told.get("until"),
        changed=bool(work.get("changed")),
        moved=moved,
        committed=moved and bool(work.get("changed")) and not work.get("committed_by_server"),
        resumed=session.resumed,
    )


HELD: Select[Story] = Select(
    lambda pk: (
        Story.objects.select_for_update(of=("self",), no_key=True).select_related("project").filter(pk=pk)
    ),
    int,
)


def conclude(session: Session, said: dict[str, Any] | None) -> None:
    """The outcome transaction: terminal state, release, next intent and history together. `said`: what the intake said; None = no copy."""
    from agents.services import sessions

    told = session.told or {"kind": "lost", "reason": "Nothing is known of its end."}
    work = (said or {}).get("result") or {}
    refused = (said or {}).get("refused")
    end = end_of(session, told, work)
    kind, reason = end.kind, end.reason
    decision = trip(session, decide(end), end)
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
    saved = str(work.get("tip") or snapshots.as_work(session))
    if not sessions.close(session, outcome=outcome, reason=decision.reason or reason, saved=saved):
        return
    if work.get("tip") or said is None:  # without a copy there may be half of one, and its base is pinned
        processes.prepare("discard", project=session.project, request={"copy": session.key})
    [story] = HELD(session.story_id)
    current = story.fence == session.fence
    works = session.role in (
        Role.CODER,
        Role.MERGEMASTER,
    )  # what others change is kept, and is not the story's
    newest = current or story.held_for or story.stage == Stage.BACKLOG  # nobody has gone on from it
    if newest:
        plans.keep(story, session)
    if saved and works and newest:
        if saved != story.tip:
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
    said_of_it = f"session {session.pk} ended: {outcome}" + (f". {decision.reason}" if decision.opens else "")
    events.record(story.project_id, "session", story=story, text=said_of_it)
    taskqueue.enqueue("agents.tasks.assign", story.project_id)


def trip(session: Session, decision: Decision, end: End) -> Decision:
    """Open the circuit breaker that the end asks for, whatever became of the story; a wait learns until when."""
    if decision.opens == "credential":
        breaker.pause_credential(session, decision.reason)
    elif decision.opens == "agent" or (decision.opens == "runtime" and session.entry.get("command")):
        # A command of the agent's own says nothing of what others run.
        breaker.pause_agent(session, decision.reason)
    elif decision.opens == "runtime":
        breaker.pause_runtime(session, decision.reason)
    elif decision.opens == "limit":
        return replace(decision, until=breaker.limit(session, decision.reason, end.until))
    elif decision.next == "wait":
        return replace(decision, until=breaker.later(session, end.until))
    return decision


def follow_branch(story: Story) -> None:
    """The story's branch in the control repository follows its newest work; a move that is lost is made by the next one."""
    control = conf.control_path(story.project.key)
    ref = f"refs/heads/{story.branch}"
    stands = read_ref(control, ref)
    if stands != story.tip:
        set_story_branch(control, story.branch, story.tip, stands)


def carry_out(story: Story, session: Session, decision: Decision, work: dict[str, Any]) -> None:
    """Rows for what comes next. The caller holds the story's row."""
    rows = Story.objects.filter(pk=story.pk)
    why = f"session {session.pk} of {session.agent.name}: {decision.reason or 'ended'}"
    if not decision.idle:
        if decision.next == "gate":
            rows.update(idle_sessions=0)
    elif too_idle := count_idle(story, session):
        return block(story, too_idle)
    if decision.next == "gate":
        crashes = F("crashes") + 1 if decision.survived else 0
        rows.update(next_prompt="", next_kind="", crashes=crashes)
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
        block(story, decision.reason)


def count_idle(story: Story, session: Session) -> str:
    """Count a session that ended by itself and changed nothing. Returns why the story is blocked, "" while it is not."""
    watch = Watch.of(session.process.parser_state) if session.process else Watch()
    earlier = story.sessions.filter(conversation=session.conversation, pk__lt=session.pk)
    states = earlier.exclude(process=None).values_list("process__parser_state", flat=True)
    read_on = progress.new_reads(watch, (Watch.of(state) for state in states))
    story.idle_sessions, story.idle_total = 0 if read_on else story.idle_sessions + 1, story.idle_total + 1
    Story.objects.filter(pk=story.pk).update(idle_sessions=story.idle_sessions, idle_total=story.idle_total)
    todo = "Look at what its agent says, change the story's text, then unblock it."
    if story.idle_sessions >= agents_conf.IDLE_IN_A_ROW:
        return f"{story.idle_sessions} sessions in a row ended without a change and without reading a file that was new to them. {todo}"
    if story.idle_total >= agents_conf.IDLE_IN_ALL:
        return f"{story.idle_total} sessions ended without a change since a person started it. {todo}"
    return ""


def not_begun(story: Story, reason: str, why: str) -> None:
    """A session that ended before its agent began charges nothing; it is tried again at once, then ever later, then people are asked."""
    last = story.sessions.order_by("-id").values_list("outcome", "told__detail")[: agents_conf.NOT_BEGUN_CAP]
    times = len(
        list(itertools.takewhile(lambda row: row[0] == "not_started" or row[1] in FREE_DETAILS, last))
    )
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
    events.record(story.project_id, "story", story=story, text=f"#{story.number} is blocked: {reason}")


def after_red_gate(run: GateRun) -> None:
    """A gate on a coder's work is over and was not green: the same agent gets the failure text, while retries last."""
    [story] = HELD(run.story_id)
    if run.verdict == "errored":
        block(story, f"The gate could not be run: {run.reason} Mend that, then unblock it.")
    else:
        what = f"The gate did not pass on {run.commit[:8]}: {run.reason}"
        if story.crashes >= agents_conf.CRASH_CAP:
            block(
                story,
                f"{story.crashes} sessions ended before their work was done, and it is not good as it is. {what} Look at it, then unblock it.",
            )
        else:
            charge(story, what, kind="gate", prompt=f"{run.reason}\n\n{run.output}")
    taskqueue.enqueue("agents.tasks.assign", story.project_id)
