"""Sweep: rows and run folders of small processes that are over and tell nobody anything any more."""

from __future__ import annotations

import shutil
from datetime import timedelta

from django.db.models import Max
from django.utils import timezone

from pipeline import conf
from pipeline.models import Process
from pipeline.models.process import ProcessState

KINDS = ("fetch", "discard", "candidate", "land", "probe", "repack")
KEPT = timedelta(hours=1)
AT_ONCE = 500


def prune() -> None:
    """A fetch a minute and a push every few seconds would fill the disk. The newest fetch of a project stays: it knows the branches."""
    over = Process.objects.filter(kind__in=KINDS, state=ProcessState.HANDLED, host=conf.host())
    newest = (
        Process.objects.filter(kind="fetch", state=ProcessState.HANDLED)
        .values("project_id")
        .annotate(newest=Max("pk"))
        .values_list("newest", flat=True)
    )
    old = over.filter(ended_at__lt=timezone.now() - KEPT).exclude(pk__in=list(newest))
    for process in list(old.order_by("pk")[:AT_ONCE]):
        # The folder first: a row without it is found again, a folder without a row is not.
        shutil.rmtree(conf.runs() / process.key, ignore_errors=True)
        process.delete()
