"""What rows alone can lie about: fences (R2), ends (R3), and logs against their events (R3)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, F, Max
from django.utils import timezone

from pipeline import conf
from pipeline.doctor import Lie
from pipeline.models import GateRun, Merge, Process, Story
from pipeline.models.process import ProcessState
from pipeline.stages import Stage

HANDLED_WITHIN = timedelta(seconds=10)
"""An end is handled by the next sweep; longer means that its handler fails each time."""


def fences() -> Iterator[Lie]:
    """R2: nothing carries a fence that its story has not reached yet."""
    for model, noun in ((GateRun, "gate run"), (Merge, "merge"), (Process, "process")):
        for row in model.objects.filter(fence__gt=F("story__fence")).select_related("story__project"):
            yield Lie(
                "R2",
                f"{noun} {row.pk}",
                f"its fence {row.fence} is above the fence {row.story.fence} of story {row.story.label}.",
            )


def ends() -> Iterator[Lie]:
    """R3: what ended says how; what ended was handled; a story's stage and its reasons fit."""
    late = timezone.now() - HANDLED_WITHIN
    for process in Process.objects.filter(
        state__in=[ProcessState.EXITED, ProcessState.LOST], ended_at__lt=late
    ):
        yield Lie(
            "R3",
            f"process {process.key}",
            f"it ended ({process.kind}), but nothing followed from that. The server's log says why.",
        )
    for process in Process.objects.filter(state=ProcessState.HANDLED, exit=None):
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
    rows = Process.objects.annotate(count=Count("events"), last=Max("events__seq"))
    for process in rows.filter(state=ProcessState.HANDLED):
        if process.count != process.last_seq or (process.last or 0) != process.last_seq:
            yield Lie(
                "R3",
                f"process {process.key}",
                f"it has {process.count} events, the last {process.last}, and says {process.last_seq}.",
            )
        size = int((process.exit or {}).get("log_size", 0))
        if process.offset < size and process.host == conf.host():
            yield Lie(
                "R3", f"process {process.key}", f"{size - process.offset} bytes of its log were never read."
            )
