"""What django-q2 calls: load, call one service, done. Delivered twice is fine; each service begins by claiming."""

from __future__ import annotations

from django.utils import timezone

from pipeline import conf
from pipeline.models import Host
from pipeline.services import processes


def launch(process_id: int) -> None:
    processes.launch(process_id)


def advance_merges(project_id: int) -> None:
    from pipeline.services import merges

    merges.advance(project_id)


def heartbeat() -> None:
    Host.objects.filter(name=conf.host()).update(queue_seen_at=timezone.now())
