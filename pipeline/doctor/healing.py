"""What the server mends by itself. Each healer looks again at what it changes, so that it may run at any time, twice, or beside itself."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from pipeline import conf, moves
from pipeline.actors import SERVER
from pipeline.doctor import Healed, history, life
from pipeline.doctor.kernel import GRACE, living
from pipeline.git import GitError
from pipeline.models import Event, EventCounter, Merge, Process, Project
from pipeline.models.merge import MergeState
from pipeline.models.process import ProcessState
from pipeline.models.project import ProjectState
from pipeline.processes import control, spawn, sweep
from pipeline.services import landing
from pipeline.stages import Stage

STOP_GRACE = 5.0


def lives_after_the_end() -> Iterator[Healed]:
    """R4: what is over has no living process: as after a host that was given up came back."""
    over = Process.objects.filter(
        host=conf.host(), state=ProcessState.HANDLED, ended_at__lt=timezone.now() - GRACE
    )
    for process in over.filter(key__in=living()):
        if stop_runner(process.key):
            yield Healed(
                "R4",
                f"process {process.key}",
                f"it ({process.kind}) was over, and its runner lived. The runner was stopped.",
            )


def unknown_runners() -> Iterator[Healed]:
    """R4: a row is committed before its child begins, so a runner without one is of a time that was undone: a restored copy, a deleted story."""
    alive = living()
    known = set(Process.objects.filter(key__in=alive).values_list("key", flat=True))
    for key in sorted(alive - known):
        if stop_runner(key):
            yield Healed(
                "R4",
                f"process {key}",
                "its runner lived, and the database does not know it. It was stopped; its working copy is kept.",
            )


def stop_runner(key: str) -> bool:
    """Whether something of it lived and was stopped: asked first, and if nobody hears, what carries its mark is killed."""
    if not spawn.runner_alive(conf.runs(), key):
        return False
    try:
        control.ask(conf.runs(), key, {"do": "stop", "grace": STOP_GRACE, "reason": "its work is over"})
    except control.ControlUnavailable:
        sweep.sweep_marked(key)
    return True


def stale_timers() -> Iterator[Healed]:
    for story in life.stale_timers().select_related("project"):
        with transaction.atomic():
            if life.stale_timers().filter(pk=story.pk).update(not_before=None):
                moves.note(
                    story,
                    "heal",
                    actor=SERVER,
                    why=f"a timer of {story.not_before} outlived its work and was taken away",
                )
                yield Healed(
                    "R3",
                    f"story {story.label}",
                    f"it is in {story.stage}, and its timer of {story.not_before} was taken away.",
                )


def counters() -> Iterator[Healed]:
    """R10: a counter behind its events would give a number out twice."""
    for project_id, name, last in (
        Event.objects.order_by().values_list("project_id", "project__name").annotate(last=Max("number"))
    ):
        EventCounter.objects.get_or_create(pk=project_id)
        if EventCounter.objects.filter(pk=project_id, number__lt=last).update(number=last):
            yield Healed(
                "R10",
                f"project {name}",
                f"its counter of events stood behind the last one, and was set to {last}.",
            )


def landed() -> Iterator[Healed]:
    """R6: what is on the branch is done, although nobody recorded it."""
    stuck = Merge.objects.filter(story__stage__in=[Stage.MERGE, Stage.MERGE_FAILURE]).exclude(candidate="")
    stuck = stuck.exclude(state=MergeState.LANDED)
    for project in Project.objects.filter(state=ProjectState.READY, pk__in=stuck.values("project")):
        candidates = stuck.filter(project=project).values_list("candidate", flat=True)
        try:  # without a lock at first: on SQLite every writer would wait for git, each minute
            there = history.reachable(conf.control_path(project.key), candidates, project.tip)
        except (GitError, OSError):
            continue  # `history.landed` tells of it
        if not there:
            continue
        with transaction.atomic():
            project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
            count = landing.heal(project, project.tip)
        if count:
            yield Healed(
                "R6",
                f"project {project.name}",
                f"{count} {'story' if count == 1 else 'stories'} had landed without being told so; now done.",
            )
