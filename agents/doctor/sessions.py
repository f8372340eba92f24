"""What sessions can lie about: fences (R2), ends (R3), slots (R4), saved work (R7)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import F, Q, QuerySet
from django.utils import timezone

from agents.models import Session
from agents.models.permission import Asking
from agents.services.hosting import LATE
from agents.states import Role, State
from pipeline import clock, conf
from pipeline import git as gits
from pipeline.doctor import Lie, history
from pipeline.git import GitError
from pipeline.models import Host, Process, Project
from pipeline.models.process import ProcessState
from pipeline.models.project import ProjectState

FOLLOWED_WITHIN = timedelta(seconds=10)
SAVED_WITHIN = timedelta(minutes=30)


def fences() -> Iterator[Lie]:
    """R2: a session carries a fence that its story has reached, and no gate run of it too; `other` agents look on under the one that holds."""
    for session in Session.objects.filter(fence__gt=F("story__fence")).select_related("story__project"):
        yield Lie(
            "R2",
            f"session {session.pk}",
            f"its fence {session.fence} is above the fence {session.story.fence} of {session.story.label}.",
        )
    doubled = Session.objects.exclude(role=Role.OTHER).filter(story__gate_runs__fence=F("fence")).distinct()
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
    for session in over.filter(requests__state=Asking.WAITING).distinct():
        yield Lie("R3", f"session {session.pk}", "it ended, and what it asked for still waits for an answer.")


def slots() -> Iterator[Lie]:
    """R4: an ended session has no live process; a live one has a process that is not over for long."""
    # What a host that was given up still runs is stopped once it is heard of.
    ended = Session.objects.filter(state=State.ENDED).exclude(
        host__in=Host.objects.exclude(lost_at=None).values("name")
    )
    late = ended.filter(clock.before("ended_at", timezone.now() - FOLLOWED_WITHIN)).select_related("process")
    for session in late.filter(process__state__in=[ProcessState.PREPARED, ProcessState.RUNNING]):
        yield Lie("R4", f"session {session.pk}", f"it ended, but its process {session.process} is not over.")
    for pk in slots_held_for_nothing().values_list("pk", flat=True):
        yield Lie(
            "R4",
            f"session {pk}",
            "its process is over and its work is not being saved, but it holds its slot.",
        )


def slots_held_for_nothing() -> QuerySet[Session]:
    """Live, though its own process and that of its saving, if there was one, have been over for a while."""
    before = timezone.now() - FOLLOWED_WITHIN
    over = Q(process__state=ProcessState.HANDLED) & clock.before("process__ended_at", before)
    unsaved = Q(saving=None) | Q(saving__state=ProcessState.HANDLED) & clock.before(
        "saving__ended_at", before
    )
    return Session.objects.live().filter(over & unsaved)


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
            gits.session_ref(key): (pk, "" if deleting else commit)  # who deletes a story wants it lost
            for pk, key, commit, deleting in project.sessions.values_list(
                "pk", "key", "saved", "story__deleting"
            )
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


def copies() -> Iterator[Lie]:
    """R7: a working copy belongs to a row: one that nobody knows may hold work, and is kept until a person has looked."""
    folder = conf.copy_path("")
    if not folder.is_dir():
        return
    here = {each.name.removesuffix(".part") for each in folder.iterdir()}
    known = set(Session.objects.filter(key__in=here).values_list("key", flat=True))
    known |= set(Process.objects.filter(key__in=here).values_list("key", flat=True))
    for key in sorted(here - known):
        yield Lie(
            "R7",
            f"copy {key}",
            "no session or process of the database made it (restored from a copy?). Take what you need, then remove the folder.",
        )
    for session in Session.objects.filter(
        key__in=known, state=State.ENDED, told__detail=LATE, host=conf.host()
    ):
        if session.ended_at and session.ended_at < timezone.now() - SAVED_WITHIN:
            yield Lie(
                "R7",
                f"session {session.pk}",
                "it was ended from afar, and its work in the working copy is not saved yet.",
            )
