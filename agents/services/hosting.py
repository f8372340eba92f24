"""What becomes of sessions when their host falls silent, comes back, is given up, or finds its database put back from an older copy."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from agents import conf as agents_conf
from agents.models import Credential, Session
from agents.services import deciding, saving, sessions
from agents.states import Outcome, Role, State
from pipeline import conf, events, moves, signals, taskqueue
from pipeline import git as gits
from pipeline.actors import SERVER, Actor
from pipeline.git import GitError
from pipeline.models import Host, Story
from pipeline.models.process import ProcessState
from pipeline.processes import spawn
from pipeline.services import processes
from pipeline.stages import Stage

LATE = "late"
"""`told["detail"]` of a session that was ended from afar: if its copy is on this host, its work is still to be saved."""
RESTORED = "The database was put back from an older copy while it ran; what it did after that is kept."


def connect() -> None:
    signals.host_silent.connect(silent, dispatch_uid="agents.host_silent")
    signals.host_back.connect(back, dispatch_uid="agents.host_back")
    signals.host_lost.connect(lost, dispatch_uid="agents.host_lost")
    signals.host_renamed.connect(renamed, dispatch_uid="agents.host_renamed")
    signals.clock_set_back.connect(clock_set_back, dispatch_uid="agents.clock")


def silent(sender: Any, *, host: Host, since: datetime, **_: Any) -> None:
    """They keep slot and claim: they may well go on, unheard."""
    _mark(host, since)


def back(sender: Any, *, host: Host, **_: Any) -> None:
    """Their supervisor follows them again by identity; those that died meanwhile end as any other."""
    _mark(host, None)


def _mark(host: Host, since: datetime | None) -> None:
    rows = Session.objects.live().filter(host=host.name, suspect_since__isnull=since is not None)
    projects = sorted(set(rows.values_list("project_id", flat=True)))
    rows.update(suspect_since=since)
    for project_id in projects:
        events.record(project_id, "session")


def lost(sender: Any, *, host: Host, actor: Actor, why: str, **_: Any) -> None:
    """Its sessions are over, charged to nobody."""
    reason = f"Host {host.name} was given up by {actor.name}. {why}".strip()
    _end_from_afar(host.name, Outcome.HOST_LOST, reason)


def renamed(sender: Any, *, old: str, new: str, **_: Any) -> None:
    Session.objects.filter(host=old).exclude(state=State.ENDED).update(host=new, suspect_since=None)


def clock_set_back(sender: Any, *, by: timedelta, **_: Any) -> None:
    now = timezone.now()
    for name in ("paused_until", "throttled_until"):
        Credential.objects.filter(**{f"{name}__gt": now}).update(**{name: F(name) + by})


def close_after_restore() -> int:
    """The live sessions of another time end as lost. What they saved before that is found at their own refs. Returns how many."""
    with transaction.atomic():
        return _end_from_afar(conf.host(), Outcome.LOST, RESTORED)


def _end_from_afar(host: str, outcome: Outcome, reason: str) -> int:
    rows = Session.objects.live().filter(host=host).select_related("agent", "project").order_by("pk")
    ended = 0
    for session in rows:
        session = Session.objects.select_related("agent", "project").filter(pk=session.pk).locked()
        if session.state == State.ENDED:
            continue
        saved = _at_its_ref(session) or session.saved
        session.told = {"kind": str(outcome), "reason": reason, "detail": LATE, "until": None}
        Session.objects.filter(pk=session.pk).update(told=session.told, suspect_since=None)
        if sessions.close(session, outcome=outcome, reason=reason, saved=saved):
            _queue_again(session, reason, saved)
            ended += 1
    return ended


def _queue_again(session: Session, reason: str, saved: str) -> None:
    """The story waits for an agent again, under a fence that makes every late word of the old session stale."""
    story = (
        Story.objects.select_for_update(of=("self",), no_key=True)
        .select_related("project")
        .get(pk=session.story_id)
    )
    if story.fence == session.fence and session.role != Role.OTHER:
        values: dict[str, Any] = {"fence": F("fence") + 1}
        if session.role == Role.CODER and story.stage == Stage.CODING and not story.held_for:
            values |= {"waiting_for": reason, "waiting_since": timezone.now(), "not_before": None}
            values |= {} if story.next_prompt else {"next_prompt": reason, "next_kind": "continue"}
        if saved and session.role in (Role.CODER, Role.MERGEMASTER):
            values["tip"] = saved
        Story.objects.filter(pk=story.pk).update(**values)
        if "tip" in values:
            story.tip = saved
            deciding.follow_branch(story)
    moves.note(
        story,
        "session_ended",
        actor=SERVER,
        why=f"session {session.pk} of {session.agent.name}: {reason} Nothing is charged.",
    )
    events.record(
        story.project_id, "session", story=story, text=f"session {session.pk} ended: {session.outcome}"
    )
    taskqueue.enqueue("agents.tasks.assign", story.project_id)


def _at_its_ref(session: Session) -> str:
    try:
        return gits.read_ref(conf.control_path(session.project.key), gits.session_ref(session.key)) or ""
    except (GitError, OSError):
        return ""


# -- work that comes late --------------------------------------------------------------------------------------------


def save_late_work() -> int:
    """The sweep: what such sessions left in a copy of this host goes to their own refs, once nothing of them lives. Returns how many began."""
    rows = Session.objects.filter(host=conf.host(), state=State.ENDED, told__detail=LATE)
    begun = 0
    for session in rows.select_related("project", "story", "saving"):
        if session.saving is not None and session.saving.state != ProcessState.HANDLED:
            continue
        if spawn.runner_alive(conf.runs(), session.key):
            continue  # who finds it over stops it
        with transaction.atomic():
            if not Session.objects.filter(pk=session.pk, told__detail=LATE, saving=session.saving).exists():
                continue
            if conf.copy_path(session.key).exists():
                Session.objects.filter(pk=session.pk).update(saving=saving.prepare_intake(session, tries=0))
                begun += 1
            else:
                _settled(session, "")
    return begun


def late_saved(session: Session, said: dict[str, Any], tries: int) -> None:
    """The intake of such a session is over; the caller's transaction. Its story goes on without it, and can find it at its ref."""
    if (session.told or {}).get("detail") != LATE:
        return
    if "failed" in said and tries < agents_conf.INTAKE_TRIES:
        Session.objects.filter(pk=session.pk).update(saving=saving.prepare_intake(session, tries=tries))
        return
    tip = str((said.get("result") or {}).get("tip") or "")
    _settled(session, tip)
    if tip:
        processes.prepare("discard", project=session.project, request={"copy": session.key})
        why = f"What session {session.pk} of {session.agent.name} left on host {session.host} is kept at {gits.session_ref(session.key)}."
    else:
        refused = (said.get("refused") or {}).get("message") or said.get("failed") or ""
        why = f"What session {session.pk} left could not be saved: {refused} Its working copy is kept."
    moves.note(session.story, "work_saved", actor=SERVER, why=why)
    events.record(session.project_id, "session", story=session.story)


def _settled(session: Session, tip: str) -> None:
    values: dict[str, Any] = {"told": (session.told or {}) | {"detail": "late, settled"}}
    Session.objects.filter(pk=session.pk).update(**values, **({"saved": tip} if tip else {}))
