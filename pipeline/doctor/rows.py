"""What rows alone can lie about: fences (R2), ends (R3), and logs against their events (R3)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, F, Q
from django.utils import timezone

from pipeline import conf, logevents
from pipeline.doctor import Lie
from pipeline.models import GateRun, Merge, Process, Story
from pipeline.models.process import ProcessState
from pipeline.services import foreground
from pipeline.stages import Stage

HANDLED_WITHIN = timedelta(seconds=10)
"""An end is handled by the next sweep; longer means that its handler fails each time."""


def fences() -> Iterator[Lie]:
    """R2: nothing carries a fence that its story has not reached yet."""
    models = (("gate run", GateRun.objects), ("merge", Merge.objects), ("process", Process.objects))
    for noun, rows in models:
        ahead = rows.filter(fence__gt=F("story__fence"))
        columns = ("pk", "fence", "story__fence", "story__project__name", "story__number")
        for pk, fence, reached, project, number in ahead.values_list(*columns):
            yield Lie(
                "R2",
                f"{noun} {pk}",
                f"its fence {fence} is above the fence {reached} of story {project}/{number}.",
            )
    gated = GateRun.objects.order_by().values_list("story__project__name", "story__number", "fence")
    twice = gated.annotate(count=Count("pk"))
    for project, number, fence, count in twice.filter(count__gt=1):
        yield Lie("R2", f"story {project}/{number}", f"{count} gate runs of it carry the fence {fence}.")


def ends() -> Iterator[Lie]:
    """R3: what ended says how; what ended was handled; a story's stage and its reasons fit."""
    late = timezone.now() - HANDLED_WITHIN
    waiting = Process.objects.filter(
        state__in=[ProcessState.EXITED, ProcessState.LOST], ended_at__lt=late, host=conf.host()
    )
    for process in waiting if foreground.server_is_running() else ():
        yield Lie(
            "R3",
            f"process {process.key}",
            f"it ended ({process.kind}), but nothing followed from that. The server's log says why.",
        )
    for process in Process.objects.filter(state=ProcessState.HANDLED, exit__isnull=True):
        yield Lie("R3", f"process {process.key}", "it is over without a word about how it ended.")
    for run in GateRun.objects.filter(state="over", ended_at=None).select_related("story__project"):
        yield Lie(
            "R3",
            f"gate run {run.pk}",
            f"it is over (story {run.story.label}) without a time at which it ended.",
        )
    for merge in Merge.objects.filter(state="failed", reason="").select_related("story__project"):
        yield Lie("R3", f"merge {merge.pk}", f"it failed (story {merge.story.label}) without a reason.")
    for story in (
        Story.objects.filter(stage=Stage.DONE).exclude(merges__state="landed").select_related("project")
    ):
        yield Lie("R3", f"story {story.label}", "it is done, but no merge of it landed.")


def logs() -> Iterator[Lie]:
    """R3: the events of a process are numbered 1, 2, 3 ... without a hole, and its whole log was read."""
    # One statement: events and `last_seq` move in one transaction, so it sees them together.
    kept = Process.objects.filter(Q(story=None) | Q(story__deleting=""))
    for key, count, last, said in logevents.holed(kept):
        yield Lie("R3", f"process {key}", f"it has {count} events, the last is {last}, and it says {said}.")
    for process in Process.objects.filter(state=ProcessState.HANDLED, host=conf.host()):
        size = int((process.exit or {}).get("log_size", 0))
        if process.offset < size:
            yield Lie(
                "R3", f"process {process.key}", f"{size - process.offset} bytes of its log were never read."
            )
