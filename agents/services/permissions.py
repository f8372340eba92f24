"""An agent asks to use a tool and waits: rules answer by themselves, else people, else the time-out denies.

The first answer stands, by compare-and-set. It is a row before the agent hears of it (`telling`), so a server that dies in between
forgets nothing; what a request came to is told by the runner's log in the same transaction as everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from agents import conf as agents_conf
from agents.exceptions import AlreadyAnswered
from agents.models import PermissionRequest, Session
from agents.models.permission import Asking
from agents.permissionfile import SECTION, Permissions, subject_of
from agents.runtimes.bounds import CUT, bounded, clip, line_of, mapping
from agents.runtimes.bounds import asked as shortened
from agents.states import State
from pipeline import conf, events, moves, taskqueue
from pipeline.actors import SERVER, Actor
from pipeline.exceptions import BadInput, NotAllowed
from pipeline.logevents import NewEvent
from pipeline.models import Process, Project
from pipeline.prepared import Select
from pipeline.roles import MAY, may
from pipeline.services import projects
from pipeline.texts import storable

REASON_AT_MOST = 1000  # characters


def policy_of(project: Project, entry: dict[str, Any]) -> Permissions:
    """An agent's own, else the project's as the active file has it now: a rule that is added helps a session that runs."""
    own = entry.get(SECTION)
    if own:
        return Permissions.from_json(own)
    section = projects.active_file(project).sections.get(SECTION)
    return section if isinstance(section, Permissions) else Permissions()


# -- asked ---------------------------------------------------------------------------------------------------------


def take(process: Process, new: Sequence[NewEvent]) -> None:
    """Rows that follow from a batch of events, in its transaction. A batch without any of these costs no query."""
    asked = [one for one in new if one.kind == "permission" and "decision" not in one.body]
    over = [str(one.body.get("id")) for one in new if one.kind == "permission_over"]
    if not (asked or over):
        return
    session = Session.objects.select_related("story__project", "agent", "project").get(process=process)
    for event in asked:
        _ask(session, event.body)
    if over:
        withdraw(session, session.requests.filter(request_id__in=over))


def _ask(session: Session, body: dict[str, Any]) -> None:
    now = timezone.now()
    arguments = mapping(shortened(body.get("input")))
    tool = clip(str(body.get("tool") or "tool"), 100)[0]
    subject = subject_of(arguments, str(conf.copy_path(session.key)))
    row, is_new = PermissionRequest.objects.get_or_create(
        session=session,
        request_id=clip(str(body.get("id", "")), 100)[0],
        defaults={
            "tool": tool,
            "subject": subject,
            "arguments": arguments,
            "text": clip(str(body.get("text") or ""), 2000)[0],
            "keep": bounded(mapping(body.get("keep"))),
            "asked_at": now,
            "deadline": now + timedelta(seconds=settings.HUSKIES_PERMISSION_WAIT),
        },
    )
    if not is_new:  # an id that was used before is no new question
        return
    answer = _known_answer(session, row)
    if answer is not None:
        state, by, reason = answer
        settle(row, state, by=by, reason=reason)
        return
    tell_people(session, f"session {session.pk} asks for {label(row)}")


def _known_answer(session: Session, row: PermissionRequest) -> tuple[Asking, str, str] | None:
    """What answers it without people: state, who, why."""
    others = session.requests.exclude(pk=row.pk)
    if not row.subject.endswith(CUT):
        same = others.filter(
            tool=row.tool, subject=row.subject, state=Asking.ALLOWED, scope="session"
        ).first()
        if same is not None:
            return Asking.ALLOWED, f"{same.answered_by} (for this session)", ""
    found = policy_of(session.project, session.entry).answer(row.tool, row.subject)
    if found is not None:
        decide, rule = found
        reason = "" if decide == "allow" else "A rule of the project does not allow this."
        return (Asking.ALLOWED if decide == "allow" else Asking.DENIED), rule[:200], reason
    if others.filter(state=Asking.WAITING).count() >= agents_conf.MOST_REQUESTS:
        return (
            Asking.DENIED,
            SERVER.name,
            f"{agents_conf.MOST_REQUESTS} requests of this session wait already.",
        )
    return None


# -- answered ------------------------------------------------------------------------------------------------------


def may_answer(user: Any, session: Session) -> bool:
    return may(user, "session.answer", session.project, own=session.started_by_id == user.pk)


def answer(
    row: PermissionRequest, *, allow: bool, actor: Actor, for_session: bool = False, reason: str = ""
) -> PermissionRequest:
    """A person's answer. Raises NotAllowed, BadInput, AlreadyAnswered."""
    session = row.session
    if actor.user is not None and not may_answer(actor.user, session):
        raise NotAllowed(
            f"{actor.name} may not answer for session {session.pk}: that needs the role {MAY['session.answer'].label}, "
            "or it is whoever started the story as a developer."
        )
    reason = storable(reason.strip(), "reason")
    if len(reason) > REASON_AT_MOST:
        raise BadInput(f"A reason has at most {REASON_AT_MOST} characters; this one has {len(reason)}.")
    state = Asking.ALLOWED if allow else Asking.DENIED
    scope = "session" if allow and for_session else "once"
    with transaction.atomic():
        if not settle(row, state, by=actor.name, reason=reason, scope=scope):
            row.refresh_from_db()
            raise AlreadyAnswered(already(row))
        what = "allowed" if allow else "denied"
        extent = " for this session" if scope == "session" else ""
        _note(session, actor, f"{what} {label(row)}{extent}" + (f": {reason}" if reason else ""))
        tell_people(session, f"{actor.name} {what} {label(row)}")
    return row


def settle(row: PermissionRequest, state: Asking, *, by: str, reason: str = "", scope: str = "once") -> bool:
    """The one way out of waiting, by compare-and-set; False when another was first. The agent hears of it soon."""
    values: dict[str, Any] = {
        "state": state,
        "answered_by": by[:200],
        "answered_at": timezone.now(),
        "reason": reason,
        "scope": scope if state == Asking.ALLOWED else "",
    }
    if not PermissionRequest.objects.filter(pk=row.pk, state=Asking.WAITING).update(**values):
        return False
    for name, value in values.items():
        setattr(row, name, value)
    if state != Asking.WITHDRAWN:
        taskqueue.enqueue("agents.tasks.tell", row.session_id)
    return True


def already(row: PermissionRequest) -> str:
    head = f"Request {row.pk} of session {row.session_id} ({label(row)})"
    if row.state == Asking.WITHDRAWN:
        return f"{head} no longer waits: its agent went on or ended. Nothing is to be done."
    who = f" by {row.answered_by}" if row.state != Asking.TIMED_OUT else ""
    when = f" at {row.answered_at:%H:%M:%S} UTC" if row.answered_at else ""
    return f"{head} is answered already: {row.get_state_display()}{who}{when}. The first answer stands."


UNANSWERED: Select[PermissionRequest] = Select(
    lambda session: PermissionRequest.objects.filter(session=session, state=Asking.WAITING), int
)


def withdraw(session: Session, rows: Any = None) -> None:
    """Its program no longer waits for these, or for any."""
    found = UNANSWERED(session.pk) if rows is None else rows.filter(state=Asking.WAITING)
    if any([settle(row, Asking.WITHDRAWN, by=SERVER.name) for row in found]):
        tell_people(session)


def sweep() -> None:
    """Nobody answered in time, or nobody waits any more."""
    rows = PermissionRequest.objects.filter(state=Asking.WAITING).select_related("session__story__project")
    for row in rows.filter(Q(deadline__lte=timezone.now()) | Q(session__state=State.ENDED)):
        if row.session.state == State.ENDED:
            with transaction.atomic():
                withdraw(row.session)
        else:
            _time_out(row)


def _time_out(row: PermissionRequest) -> None:
    waited = round((row.deadline - row.asked_at).total_seconds())
    reason = f"Nobody answered within {waited} seconds. Do without it, or do it another way."
    with transaction.atomic():
        if settle(row, Asking.TIMED_OUT, by=SERVER.name, reason=reason):
            _note(row.session, SERVER, f"denied {label(row)}: nobody answered within {waited} seconds")
            tell_people(row.session, f"nobody answered {label(row)}")


def waiting(project: Project) -> list[PermissionRequest]:
    """What waits for an answer, oldest first."""
    rows = PermissionRequest.objects.filter(session__project=project, state=Asking.WAITING)
    return list(rows.select_related("session__story__project", "session__agent").order_by("id"))


def label(row: PermissionRequest) -> str:
    return f"{row.tool} {line_of(row.subject, 120)}".strip()


def left(row: PermissionRequest, now: datetime) -> int:
    """Seconds until it is denied."""
    return max(0, round((row.deadline - now).total_seconds()))


def _note(session: Session, actor: Actor, why: str) -> None:
    moves.note(session.story, "permission", actor=actor, why=f"session {session.pk}: {why}")


def tell_people(session: Session, text: str = "") -> None:
    """News for the board's list and the session's page; inside the transaction, as its last statement."""
    events.record(session.project_id, "needs", story=session.story, text=text)
