"""One circuit breaker per credential; an agent's is its own pause, a runtime's is per host. While one is open nothing new starts with it.

A provider's limit opens a credential's until the reset time and it closes by itself; a refused key, an empty account, a model that is not
there and a program that does not run keep theirs open until a person closes it, which also unblocks the stories that it had blocked.
A session without a credential has no account that others could share: only its own story waits.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from agents import conf as agents_conf
from agents.models import Agent, Credential, Fitness, RuntimeCheck, Session
from agents.services.logins import hindrance
from agents.states import Outcome, State
from pipeline import events, moves, taskqueue
from pipeline.actors import SERVER, Actor
from pipeline.exceptions import Refused, TransitionRefused
from pipeline.models import Act, Project, Story
from pipeline.services.stories import check_may
from pipeline.stages import Stage

__all__ = ["hindrance"]

LONGEST = timedelta(days=8)
"""A weekly limit resets within seven days; a time beyond that is not believed."""
REASON_AT_MOST = 500  # characters, as in the columns


# -- opening -----------------------------------------------------------------------------------------------------------


def limit(session: Session, reason: str, until: float | None) -> datetime:
    """The provider refuses requests for now: its credential rests, and the story of each session that it ended. Returns until when.

    `until`: epoch seconds of the reset; None = it did not say, and the wait grows with each refusal. Inside the caller's transaction.
    """
    now = timezone.now()
    at = _believed(until, now) or now + _growing(session)
    if session.credential_id is None:
        return at
    open_for_good = Q(paused_until=None) & ~Q(paused_for="")
    rows = (
        Credential.objects.filter(pk=session.credential_id)
        .exclude(open_for_good)
        .exclude(paused_until__gte=at)
    )
    if rows.update(paused_for=reason[:REASON_AT_MOST], paused_until=at):
        _tell(
            session,
            "credential.pause",
            f"credential {_name(session)}",
            f"{reason} Until {at:%Y-%m-%d %H:%M:%S} UTC.",
        )
    found = Credential.objects.filter(pk=session.credential_id).values_list("paused_until", flat=True).first()
    at = max(at, found) if found else at
    _waiting(session.credential_id, now).filter(not_before__lt=at).update(not_before=at)
    return at


def later(session: Session, until: float | None) -> datetime:
    """When to try again after the provider itself was in trouble: nobody's account is at fault, so only this story waits."""
    now = timezone.now()
    return _believed(until, now) or now + _growing(session)


def throttle(session: Session, until: object) -> None:
    """The provider warned that a limit is near. Nothing is held back; pages show it."""
    now = timezone.now()
    at = _believed(until if isinstance(until, int | float) else None, now)
    if session.credential_id is not None:
        at = at or now + timedelta(seconds=agents_conf.PROVIDER_WAIT_SECONDS)
        Credential.objects.filter(pk=session.credential_id).update(throttled_until=at)


def pause_credential(session: Session, reason: str) -> None:
    """A refused or empty account: nothing more starts with it until a person has seen to it. Without a credential the agent is paused."""
    if session.credential_id is None:
        return pause_agent(session, reason)
    Credential.objects.filter(pk=session.credential_id).update(
        paused_for=reason[:REASON_AT_MOST], paused_until=None
    )
    _tell(session, "credential.pause", f"credential {_name(session)}", reason)


def pause_agent(session: Session, reason: str) -> None:
    """Its model does not exist for this account: the agent takes nothing new until its entry is corrected or a person resumes it."""
    if Agent.objects.filter(pk=session.agent_id, paused_for="").update(
        paused_for=reason[:REASON_AT_MOST], paused_by=""
    ):
        _tell(session, "agent.pause", f"agent {session.project.name}/{session.agent.name}", reason)


def pause_runtime(session: Session, reason: str) -> None:
    """The program does not run on this host: a check that finds it fit (services.preflight) or a person ends that."""
    reason = reason[:REASON_AT_MOST] or "It does not run."
    row, _ = RuntimeCheck.objects.get_or_create(host=session.host, runtime=session.runtime)
    known = RuntimeCheck.objects.filter(pk=row.pk).exclude(state=Fitness.UNFIT)
    if known.update(state=Fitness.UNFIT, reason=reason, remedy="", warning="", told_by_session=True):
        _tell(session, "runtime.pause", f"runtime {session.runtime} on {session.host}", reason)


# -- closing -----------------------------------------------------------------------------------------------------------


def lift_credential(credential: Credential, *, actor: Actor) -> None:
    """A person has seen to it: starts go on, and stories that waited for it or were blocked by it too. Raises NotAllowed, Refused."""
    check_may(actor, "credential.edit", None)
    with transaction.atomic():
        why = Credential.objects.filter(pk=credential.pk).values_list("paused_for", flat=True).first()
        if (
            not Credential.objects.filter(pk=credential.pk)
            .exclude(paused_for="")
            .update(paused_for="", paused_until=None, throttled_until=None)
        ):
            raise Refused(f"Credential {credential.name} is not paused, so there is nothing to lift.")
        _waiting(credential.pk, timezone.now()).update(not_before=None, waiting_for="")
        _closed(
            "credential.lift", f"credential {credential.name}", f"it was paused: {why}", actor,
            Q(sessions__credential=credential), (Outcome.AUTH, Outcome.BILLING),
        )  # fmt: skip
    credential.refresh_from_db()


def lift_runtime(row: RuntimeCheck, *, actor: Actor) -> None:
    """A person says that the program was mended: sessions of it begin again on that host. Raises NotAllowed, Refused."""
    check_may(actor, "credential.edit", None)
    with transaction.atomic():
        unfit = RuntimeCheck.objects.filter(pk=row.pk, state=Fitness.UNFIT)
        if not unfit.update(state=Fitness.UNKNOWN, reason="", remedy="", told_by_session=False):
            raise Refused(f"Runtime {row.runtime} on {row.host} is not paused, so there is nothing to lift.")
        runtime_goes_on(row, "runtime.lift", f"it was paused: {row.reason}", actor)


def runtime_goes_on(row: RuntimeCheck, verb: str, why: str, actor: Actor) -> None:
    """The program is used again on that host. Inside the caller's transaction."""
    blocked = Q(sessions__runtime=row.runtime, sessions__host=row.host)
    users = Q(agents__runtime=row.runtime, agents__configured=True)
    subject = f"runtime {row.runtime} on {row.host}"
    _closed(verb, subject, why, actor, blocked, (Outcome.CONFIG,), users)


def after_resume(agent: Agent, *, actor: Actor) -> None:
    """A person resumed an agent: the stories that its pause had blocked go on. Inside the caller's transaction."""
    _unblock(Q(sessions__agent=agent), (Outcome.BAD_MODEL, Outcome.AUTH, Outcome.BILLING), actor)


def sweep() -> None:
    """Timed pauses that are over."""
    now = timezone.now()
    Credential.objects.filter(throttled_until__lte=now).update(throttled_until=None)
    for row in Credential.objects.filter(paused_until__lte=now).exclude(paused_for=""):
        with transaction.atomic():
            if Credential.objects.filter(pk=row.pk, paused_until=row.paused_until).update(
                paused_for="", paused_until=None
            ):
                _closed(
                    "credential.lift", f"credential {row.name}", "its time is over", SERVER,
                    Q(sessions__credential=row), (),
                )  # fmt: skip


def _closed(
    verb: str, subject: str, why: str, actor: Actor, of: Q, outcomes: tuple[str, ...], users: Q | None = None
) -> None:
    """The act, the stories that go on, and a look for work in each project that is concerned: `of`, and its `users`."""
    Act.objects.create(actor=actor.name, verb=verb, subject=subject, why=why)
    _unblock(of, outcomes, actor)
    concerned = of if users is None else of | users
    for project_id in (
        Project.objects.filter(concerned).order_by("pk").values_list("pk", flat=True).distinct()
    ):
        events.record(project_id, "limits", text=f"{subject} is free again: {why}")
        taskqueue.enqueue("agents.tasks.assign", project_id)


def _unblock(of: Q, outcomes: tuple[str, ...], actor: Actor) -> None:
    """Stories that are blocked for that reason and for no newer one."""
    rows = Story.objects.filter(of, stage=Stage.BLOCKED, sessions__outcome__in=outcomes)
    for story in rows.distinct():
        last = story.sessions.order_by("-id").first()
        if last is not None and last.outcome in outcomes and last.reason == story.reason:
            try:
                moves.move(story, "unblock", actor=actor, why="what blocked it was mended", held_for="")
            except TransitionRefused:
                continue  # a person was first


# -- helpers -----------------------------------------------------------------------------------------------------------


def _believed(until: float | None, now: datetime) -> datetime | None:
    """A reset time as a moment; None for one that is past or too far away to be true."""
    if not until or not now.timestamp() < until < (now + LONGEST).timestamp():
        return None
    return datetime.fromtimestamp(until, tz=UTC)


def _growing(session: Session) -> timedelta:
    """How long to wait where the provider did not say: longer with each refusal in a row of the account (or of the story without one)."""
    rows = Session.objects.filter(state=State.ENDED).exclude(pk=session.pk)
    rows = (
        rows.filter(credential=session.credential_id)
        if session.credential_id
        else rows.filter(story=session.story_id)
    )
    last = rows.order_by("-id").values_list("outcome", flat=True)[:10]
    times = len(
        list(itertools.takewhile(lambda one: one in (Outcome.RATE_LIMITED, Outcome.OVERLOADED), last))
    )
    seconds = min(agents_conf.PROVIDER_WAIT_SECONDS * 2**times, agents_conf.PROVIDER_WAIT_MOST_SECONDS)
    return timedelta(seconds=seconds)


def _waiting(credential_id: int, now: datetime) -> QuerySet[Story]:
    """Stories that wait for this credential: their newest session ended at its limit."""
    newest = Session.objects.filter(story=OuterRef("pk")).order_by("-id")
    return (
        Story.objects.filter(not_before__gt=now)
        .alias(of=Subquery(newest.values("credential")[:1]), how=Subquery(newest.values("outcome")[:1]))
        .filter(of=credential_id, how=Outcome.RATE_LIMITED)
    )


def _name(session: Session) -> str:
    return Credential.objects.values_list("name", flat=True).get(pk=session.credential_id or 0)


def _tell(session: Session, verb: str, subject: str, why: str) -> None:
    Act.objects.create(actor=SERVER.name, verb=verb, subject=subject, why=why)
    events.record(session.project_id, "limits", text=f"{subject} is paused: {why}")
