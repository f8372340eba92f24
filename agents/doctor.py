"""What sessions can lie about: limits (R1), fences (R2), ends (R3), slots (R4), saved work (R7).

A function of `all_of_agents` is a checker as in `pipeline.doctor`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, F, Q
from django.utils import timezone

from agents.models import Session
from agents.states import Role, State
from pipeline import conf
from pipeline import git as gits
from pipeline.doctor import Checker, Lie, history
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
    by_agent = live.values_list("project__name", "agent__name").annotate(count=Count("pk"))
    for project, agent, count in by_agent.filter(count__gt=1):
        yield Lie("R1", f"agent {project}/{agent}", f"{count} sessions of it are live.")
    by_story = live.exclude(role=Role.OTHER).values_list("project__name", "story__number", "role")
    for project, number, role, count in by_story.annotate(count=Count("pk")).filter(count__gt=1):
        yield Lie("R1", f"story {project}/{number}", f"{count} live sessions of role {role} are on it.")
    capacity = Capacity.objects.filter(pk=1).first()
    if capacity is not None and live.count() > capacity.limit:
        yield Lie(
            "R1",
            "the server",
            f"{live.count()} sessions are live, and its limit is {capacity.limit}. (A limit lowered just now?)",
        )


def fences() -> Iterator[Lie]:
    """R2: a session carries a fence that its story has reached, and that no gate run of it carries too."""
    for session in Session.objects.filter(fence__gt=F("story__fence")).select_related("story__project"):
        yield Lie(
            "R2",
            f"session {session.pk}",
            f"its fence {session.fence} is above the fence {session.story.fence} of {session.story.label}.",
        )
    doubled = Session.objects.filter(story__gate_runs__fence=F("fence")).distinct()
    for session in doubled.select_related("story__project"):
        yield Lie(
            "R2",
            f"session {session.pk}",
            f"its fence {session.fence} was given to a gate run of {session.story.label} as well.",
        )


def ends() -> Iterator[Lie]:
    """R3: an ended session says how, why and when, and a live one does not."""
    over = Session.objects.filter(state=State.ENDED)
    for session in over.filter(Q(ended_at=None) | Q(outcome="")):
        yield Lie("R3", f"session {session.pk}", "it ended without saying how or when.")
    for session in over.filter(reason=""):
        yield Lie("R3", f"session {session.pk}", f"it ended as {session.outcome} without a reason.")
    for session in Session.objects.live().filter(~Q(outcome="") | ~Q(ended_at=None)):
        yield Lie("R3", f"session {session.pk}", f"it is {session.state}, and has an outcome or an end.")


def slots() -> Iterator[Lie]:
    """R4: an ended session has no live process; a live one has a process that is not over for long."""
    before = timezone.now() - FOLLOWED_WITHIN
    rows = Session.objects.select_related("process", "saving")
    for session in rows.filter(
        state=State.ENDED, process__state__in=[ProcessState.PREPARED, ProcessState.RUNNING]
    ):
        yield Lie("R4", f"session {session.pk}", f"it ended, but its process {session.process} is not over.")
    stuck = rows.exclude(state=State.ENDED).filter(
        process__state=ProcessState.HANDLED, process__ended_at__lt=before
    )
    for session in stuck:
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
        }
        lost = history.missing(control, [commit for _, commit in known.values() if commit])
        for ref, (pk, commit) in known.items():
            if commit in lost:
                yield Lie("R7", f"session {pk}", f"its work {commit[:12]} is not in the control repository.")
            elif commit and refs.get(ref) != commit:
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
