"""What sessions can lie about: limits (R1), fences (R2), ends (R3), slots (R4), saved work (R7)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, F
from django.utils import timezone

from agents.models import Session
from agents.states import State
from pipeline import conf
from pipeline import git as gits
from pipeline.doctor import Checker, Lie
from pipeline.git import GitError
from pipeline.models import Capacity, Project
from pipeline.models.process import ProcessState
from pipeline.models.project import ProjectState

FOLLOWED_WITHIN = timedelta(seconds=10)


def all_of_agents() -> Iterator[Checker]:
    yield from (limits, fences, ends, slots, saved)


def limits() -> Iterator[Lie]:
    """R1: one live session per agent, and per story and role; never more in all than the server's limit."""
    live = Session.objects.live().order_by()
    for row in live.values("agent", "agent__name").annotate(count=Count("pk")).filter(count__gt=1):
        yield Lie("R1", f"agent {row['agent__name']}", f"{row['count']} sessions of it are live.")
    doubled = (
        live.exclude(role="other")
        .values("story__project__name", "story__number", "role")
        .annotate(count=Count("pk"))
    )
    for row in doubled.filter(count__gt=1):
        label = f"{row['story__project__name']}/{row['story__number']}"
        yield Lie("R1", f"story {label}", f"{row['count']} live sessions of role {row['role']} are on it.")
    capacity = Capacity.objects.filter(pk=1).first()
    if capacity is not None and live.count() > capacity.limit:
        yield Lie(
            "R1",
            "the server",
            f"{live.count()} sessions are live, and its limit is {capacity.limit}. (A limit lowered just now?)",
        )


def fences() -> Iterator[Lie]:
    """R2: a session carries a fence that its story has reached."""
    for session in Session.objects.filter(fence__gt=F("story__fence")).select_related("story__project"):
        yield Lie(
            "R2",
            f"session {session.pk}",
            f"its fence {session.fence} is above the fence {session.story.fence} of {session.story.label}.",
        )


def ends() -> Iterator[Lie]:
    """R3: an ended session says how and when, and its process is over."""
    over = Session.objects.filter(state=State.ENDED).select_related("process")
    for session in over.filter(ended_at=None) | over.filter(outcome=""):
        yield Lie("R3", f"session {session.pk}", "it ended without saying how or when.")
    for session in over.filter(reason="").exclude(outcome__in=["done", "completed", "succeeded"]):
        yield Lie("R3", f"session {session.pk}", f"it ended as {session.outcome} without a reason.")


def slots() -> Iterator[Lie]:
    """R4: an ended session has no live process; a live one has a process that is not over for long."""
    before = timezone.now() - FOLLOWED_WITHIN
    rows = Session.objects.select_related("process", "saving")
    for session in rows.filter(
        state=State.ENDED, process__state__in=[ProcessState.PREPARED, ProcessState.RUNNING]
    ):
        yield Lie("R4", f"session {session.pk}", f"it ended, but its process {session.process} is not over.")
    for session in rows.exclude(state=State.ENDED).filter(
        process__state=ProcessState.HANDLED, process__ended_at__lt=before
    ):
        if session.saving is None or (
            session.saving.state == ProcessState.HANDLED
            and session.saving.ended_at
            and session.saving.ended_at < before
        ):
            yield Lie(
                "R4",
                f"session {session.pk}",
                "its process is over and its work is not being saved, but it holds its slot.",
            )


def saved() -> Iterator[Lie]:
    """R7: what a session left is at its ref until a person removes it; work at refs that no session knows is kept and named."""
    for project in Project.objects.filter(state=ProjectState.READY):
        control = conf.control_path(project.key)
        try:
            refs = gits.list_refs(control, "refs/huskies/sessions/")
        except (GitError, OSError) as error:
            yield Lie("R7", f"project {project.name}", f"its control repository cannot be read: {error}")
            continue
        known = {
            gits.session_ref(key): (pk, commit)
            for pk, key, commit in project.sessions.values_list("pk", "key", "saved")
        }  # type: ignore[attr-defined]
        for ref, (pk, commit) in known.items():
            if commit and refs.get(ref) != commit:
                yield Lie(
                    "R7",
                    f"session {pk}",
                    f"its work {commit[:12]} should be at {ref}, which is {refs.get(ref) or 'not there'}.",
                )
        for ref in sorted(set(refs) - set(known)):
            yield Lie(
                "R7",
                f"project {project.name}",
                f"{ref} holds work of a session that the database does not know (restored from a copy?).",
            )
