"""What a story's life and the server's rows can lie about: a history without a gap (R8), nothing queued that stands still (R9), numbered news
(R10), bounds (R11), dates (R12), timers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db.models import Count, F, Max, Min, OuterRef, Q, QuerySet, Subquery, Window
from django.db.models.functions import Lag
from django.utils import timezone

from pipeline import clock, conf, taskqueue
from pipeline.doctor import Lie
from pipeline.models import Act, Event, EventCounter, GateRun, Host, Merge, Process, StageChange, Story
from pipeline.models.merge import OVER as MERGED
from pipeline.models.process import ProcessState
from pipeline.models.project import ProjectState
from pipeline.services import foreground
from pipeline.stages import NEEDS_A_PERSON, OVER, Stage

STOOD_STILL = timedelta(seconds=15)
TASKS_AT_MOST = 1000
DISK_FLOOR = 256 * 1024 * 1024
LOG_AT_MOST = 100_000_000
"""Bytes of one run's log: twice the largest cap, since a stop takes its time."""


def histories() -> Iterator[Lie]:
    """R8: each move begins where the last one ended, and the story stands where the newest one led. So no move was made twice, and none untold."""
    moves = StageChange.objects.exclude(from_stage=F("to_stage"))
    before = Window(Lag("to_stage"), partition_by="story_id", order_by="id")
    gaps = (
        moves.exclude(from_stage="")
        .annotate(before=before)
        .filter(~Q(before=F("from_stage")), before__isnull=False)
    )
    for change in gaps.select_related("story__project"):
        said = f"its history goes from {change.before} to a move out of {change.from_stage} ({change.verb})."
        yield Lie("R8", f"story {change.story.label}", said)
    last = moves.filter(story=OuterRef("pk")).order_by("-id").values("to_stage")[:1]
    lost = Story.objects.annotate(last=Subquery(last)).exclude(last=None).exclude(last=F("stage"))
    for project, number, stage, told in lost.values_list("project__name", "number", "stage", "last"):
        yield Lie("R8", f"story {project}/{number}", f"it is in {stage}, and its history led to {told}.")


def reasons() -> Iterator[Lie]:
    """R3: what is stuck says why."""
    for story in Story.objects.filter(stage__in=NEEDS_A_PERSON, reason="").select_related("project"):
        yield Lie("R3", f"story {story.label}", f"it is in {story.stage} without a reason.")


def timers() -> Iterator[Lie]:
    """R3: a timer outlives neither its story nor a stop."""
    for story in stale_timers().select_related("project"):
        yield Lie(
            "R3",
            f"story {story.label}",
            f"it is in {story.stage}, and a timer of it goes off at {story.not_before}.",
        )
    for merge in Merge.objects.filter(state__in=MERGED, next_try__isnull=False).select_related(
        "story__project"
    ):
        yield Lie(
            "R3",
            f"merge {merge.pk}",
            f"it is over (story {merge.story.label}), and is to be tried again at {merge.next_try}.",
        )


def stale_timers() -> QuerySet[Story]:
    return Story.objects.filter(stage__in=[*OVER, *NEEDS_A_PERSON, Stage.BACKLOG], not_before__isnull=False)


def queues() -> Iterator[Lie]:
    """R9: a story that may be merged is, while a server runs here."""
    if not foreground.server_is_running():
        return
    late = timezone.now() - STOOD_STILL
    rows = Story.objects.filter(
        stage=Stage.MERGE,
        needs_approval="",
        deleting="",
        stage_at__lt=late,
        project__state=ProjectState.READY,
    )
    busy = Merge.objects.exclude(state__in=MERGED).values("project_id")
    for story in rows.unhindered().exclude(project__in=busy).select_related("project"):
        if not story.waiting_for:
            yield Lie(
                "R9",
                f"story {story.label}",
                "it may be merged, and no merge began. The server's log says why.",
            )
    for merge in (
        Merge.objects.exclude(state__in=MERGED).filter(next_try__lt=late).select_related("story__project")
    ):
        yield Lie(
            "R9",
            f"merge {merge.pk}",
            f"it (story {merge.story.label}) should have been tried again at {merge.next_try}.",
        )


def news() -> Iterator[Lie]:
    """R10: the events of a project are numbered without a hole, up to its counter. A deleted story takes its own with it."""
    counters = dict(EventCounter.objects.values_list("project_id", "number"))
    numbered = Event.objects.order_by().values_list("project_id", "project__name")
    for project_id, name, first, last, count in numbered.annotate(
        first=Min("number"), last=Max("number"), n=Count("pk")
    ):
        counter = counters.get(project_id)
        if counter is None or last > counter:
            yield Lie(
                "R10",
                f"project {name}",
                f"its last event is {last}, and its counter stands at {counter}: the next one collides.",
            )
        elif (
            count != last - first + 1
            and not Act.objects.filter(verb="delete", subject__startswith=f"story {name}/").exists()
        ):
            yield Lie(
                "R10",
                f"project {name}",
                f"{last - first + 1 - count} of its events from {first} to {last} are missing.",
            )


def bounds() -> Iterator[Lie]:
    """R11: the queue, each log and the disk stay within bounds."""
    tasks = taskqueue.length()
    if tasks > TASKS_AT_MOST:
        yield Lie(
            "R11",
            "the queue",
            f"{tasks} tasks wait in it. Its workers hang or are too few (HUSKIES_WORKERS).",
        )
    try:
        said = os.statvfs(conf.home())
    except OSError as error:
        yield Lie("R11", "the data folder", f"it cannot be looked at ({error.strerror}).")
        return
    free = said.f_bavail * said.f_frsize
    if free < DISK_FLOOR:
        yield Lie(
            "R11",
            "the data folder",
            f"{free // 1_000_000} MB are free on its disk. Make room: without it nothing is saved.",
        )
    live = Process.objects.unhandled().filter(host=conf.host(), state=ProcessState.RUNNING)
    for key in live.values_list("key", flat=True):
        try:
            size = (conf.runs() / key / "log").stat().st_size
        except OSError:
            continue
        if size > LOG_AT_MOST:
            yield Lie("R11", f"process {key}", f"its log has {size // 1_000_000} MB, more than any may have.")


def dates() -> Iterator[Lie]:
    """R12: no row is dated ahead of now. Nothing depends on such a date but what people read."""
    yield from ahead("stories", Story.objects.all(), "created_at", "stage_at")
    yield from ahead("history", StageChange.objects.all(), "at")
    yield from ahead("events", Event.objects.all(), "at")
    yield from ahead("processes", Process.objects.all(), "created_at", "started_at", "ended_at")
    yield from ahead("gate runs", GateRun.objects.all(), "created_at", "ended_at")
    yield from ahead("merges", Merge.objects.all(), "created_at", "ended_at")
    yield from ahead("hosts", Host.objects.all(), "seen_at", "queue_seen_at")


def ahead(noun: str, rows: QuerySet[Any], *fields: str) -> Iterator[Lie]:
    limit, late = timezone.now() + clock.AHEAD, Q()
    for name in fields:
        late |= Q(**{f"{name}__gt": limit})
    count = rows.filter(late).count()
    if count:
        said = f"{count} are dated ahead of now: the clock was set back since, or another host's is wrong. Time mends it; nothing depends on it."
        yield Lie("R12", noun, said)
