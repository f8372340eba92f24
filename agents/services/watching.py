"""The watchdog: what a running session may use, measured each two seconds from what its log has told so far.

It adds what needs the database to the runner's own deadlines. First a warning, then a stop that is asked for with its cause: the runner
ends and verifies the whole tree, the work is taken in as after every end, and `deciding` judges it. With the warning
the files of the running copy are kept (pipeline/processes/chore_snapshot.py), for the case that the copy itself is lost.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from agents import conf as agents_conf
from agents.models import Session
from agents.runtimes import get_runtime
from agents.services import allowances, breaker, sessions, snapshots
from agents.services.progress import Watch
from agents.services.spending import Budgets
from agents.states import State, StopCause
from pipeline import conf, events, moves
from pipeline.actors import SERVER
from pipeline.models import Process
from pipeline.models.process import ProcessState
from pipeline.processes import memory
from pipeline.services import processes

logger = logging.getLogger("huskies.watchdog")

Stop = tuple[StopCause, str]
"""Why a session must end: the cause, and the sentence that people read."""


def sweep() -> None:
    """Look at every session of this host; end those that must. Idempotent; one query when nothing runs."""
    breaker.sweep()
    rows = (
        Session.objects.live().filter(host=conf.host(), stop_requested_at=None).exclude(state=State.STOPPING)
    )
    found = list(rows.select_related("process", "agent", "started_by", "story__project"))
    if not found:
        return
    now = timezone.now()
    budgets, held = Budgets.look(now), memory.by_key()
    for session in found:
        try:
            look(session, budgets, held.get(session.key, 0), now)
        except Exception:  # one that cannot be read must not hide the others
            logger.exception("Session %s could not be watched.", session.pk, extra={"action": "watch_failed"})


def look(session: Session, budgets: Budgets, held: int, now: datetime) -> None:
    """Judge one session. `held`: bytes of memory of all its processes."""
    process = session.process
    if process is None:
        return
    watch = Watch.of(process.parser_state)
    if held > session.peak_memory:
        Session.objects.filter(pk=session.pk).update(peak_memory=held)
    stop_it = (
        _unfit(session, process, watch, held, now) if process.main_started else _slow_start(session, now)
    )
    stop_it = stop_it or _overspent(session, budgets)
    if stop_it is None and process.main_started:
        stop_it = _over_its_own(session, watch, budgets, now)
    if stop_it is not None:
        stop(session, *stop_it)


def stop(session: Session, cause: StopCause, why: str) -> None:
    """End it for this cause, told to people; its work is taken in as after every end."""
    with transaction.atomic():
        if sessions.request_stop(session, by=SERVER.name, cause=cause, why=why):
            events.record(
                session.project_id,
                "session",
                story=session.story,
                text=f"session {session.pk} is stopped: {why}",
            )
    sessions.carry_out_stop(session.pk)


def _slow_start(session: Session, now: datetime) -> Stop | None:
    if now - session.created_at <= timedelta(seconds=agents_conf.START_SECONDS):
        return None
    minutes = agents_conf.START_SECONDS / 60
    return (
        StopCause.HUNG,
        f"It did not begin within {minutes:.0f} minutes of its claim: see the setup in its log.",
    )


def _unfit(session: Session, process: Process, watch: Watch, held: int, now: datetime) -> Stop | None:
    """What ends a session at once, without a warning."""
    if process.state != ProcessState.RUNNING:
        return None
    if not conf.copy_path(session.key).exists():
        return StopCause.WORKSPACE_LOST, "Its working copy was removed while it worked."
    most = session.entry.get("max_memory")
    if most and held > int(most):
        return (
            StopCause.MEMORY_LIMIT,
            f"Its processes held {held:,} bytes of memory, of {int(most):,} allowed (max_memory). Raise that, or split the story.",
        )
    if watch.blocked and now.timestamp() - watch.blocked > agents_conf.BLOCKED_GRACE_SECONDS:
        if not watch.until or watch.until - now.timestamp() > agents_conf.LIMIT_PATIENCE_SECONDS:
            return (
                StopCause.RATE_LIMITED,
                "The account's limit is reached; the story waits until it is free again.",
            )
    return _silent(session, process, watch, now)


def _silent(session: Session, process: Process, watch: Watch, now: datetime) -> Stop | None:
    """Nothing for too long, while nothing is known to be under way. Measured by the monotonic clock of the machine that ran it."""
    most = float(session.entry.get("inactivity_timeout") or 300.0)
    if not watch.began:  # it is loading itself, which the machine's load makes long or short
        most = agents_conf.FIRST_EVENT_SECONDS
    if watch.silent_for(time.monotonic_ns(), now) <= most or not _all_is_stored(process):
        return None
    if not watch.began:
        return StopCause.HUNG, f"The program gave no first event within {most:.0f} seconds of its start."
    return (
        StopCause.HUNG,
        f"The program printed nothing for {most:.0f} seconds (inactivity_timeout) and was ended.",
    )


def _all_is_stored(process: Process) -> bool:
    """Whether its silence is its own: a supervisor that lags has not read what it said."""
    try:
        size = (conf.runs() / process.key / "log").stat().st_size
    except OSError:
        return False
    return size <= Process.objects.values_list("offset", flat=True).get(pk=process.pk)


def _overspent(session: Session, budgets: Budgets) -> Stop | None:
    """A budget that others pay into too is used up: everything that counts against it ends, never extended."""
    for standing in budgets.applying(session.story, session.started_by):
        if standing.spent:
            return StopCause.BUDGET, f"Nothing is left of {standing}; {standing.remedy(budgets.now)}."
    return None


def _over_its_own(session: Session, watch: Watch, budgets: Budgets, now: datetime) -> Stop | None:
    """First the warning; a stop only in a later look, and with room for who used the warning."""
    own = allowances.of(session, watch, now)
    if session.warned_at is None:
        near = [one.said for one in own if one.near]
        near += [
            str(standing)
            for standing in budgets.applying(session.story, session.started_by)
            if standing.fraction() >= agents_conf.WARN_AT
        ]
        if near:
            warn(session, near, now)
        return None
    over = next((one for one in own if one.over), None)
    if over is None:
        return None
    what = {StopCause.BUDGET: "used its budget", StopCause.WALL_LIMIT: "used its time"}.get(
        over.cause, "used all its turns"
    )
    hint = " It had 20 % more, for its progress." if allowances.extended(session, watch) else ""
    return over.cause, f"The agent {what}: {over.said}.{hint} Raise the limit, or split the story."


def warn(session: Session, near: list[str], now: datetime) -> None:
    """Once: the agent is told where its program takes a message, and people in any case."""
    text = f"A limit of this session is near: {'; '.join(near)}. Commit what works now, then finish the most important part."
    with transaction.atomic():
        if not Session.objects.filter(pk=session.pk, warned_at=None).update(warned_at=now):
            return
        snapshots.take(session)
        moves.note(session.story, "warn", actor=SERVER, why=f"session {session.pk}: {'; '.join(near)}")
        events.record(
            session.project_id, "session", story=session.story, text=f"session {session.pk} nears a limit"
        )
    session.warned_at = now
    line = get_runtime(session.runtime).message(text)
    if line is not None and session.process is not None:
        processes.tell(session.process, line)
