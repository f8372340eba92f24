"""What the kernel says about this host's processes against what the database says (R4)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.utils import timezone

from pipeline import conf
from pipeline.doctor import Lie
from pipeline.models import Process
from pipeline.models.process import ProcessState
from pipeline.processes import identity as identities
from pipeline.processes import spawn
from pipeline.processes.identity import Identity
from pipeline.processes.runfolder import MARKER
from pipeline.services import foreground

GRACE = timedelta(seconds=6)
"""The grace of a stop (5 s) and one more."""


def living() -> set[str]:
    """The keys of this data folder whose runner lives, by the lock: few, however many run folders are kept."""
    folders = conf.runs().iterdir() if conf.runs().exists() else ()
    return {folder.name for folder in folders if spawn.runner_alive(conf.runs(), folder.name)}


def processes() -> Iterator[Lie]:
    """R4: what is over has no runner; while a server follows this host, what runs has one, and what is prepared is launched."""
    before = timezone.now() - GRACE
    mine = Process.objects.filter(host=conf.host())
    over = mine.filter(
        state__in=[ProcessState.EXITED, ProcessState.LOST, ProcessState.HANDLED], ended_at__lt=before
    )
    for process in over.filter(key__in=living()):
        yield Lie("R4", f"process {process.key}", f"it is over ({process.kind}), but its runner lives.")
    if not foreground.server_is_running():
        return  # what ended meanwhile is noticed by the next `up`, and says nothing false until then
    for process in mine.unhandled().filter(state=ProcessState.RUNNING, started_at__lt=before):
        who = Identity(process.pid or 0, process.start_time or 0, process.boot_id)
        if not identities.is_alive(who) and not spawn.runner_alive(conf.runs(), process.key):
            yield Lie(
                "R4",
                f"process {process.key}",
                f"it is said to run ({process.kind}), but its runner {who.pid} is dead.",
            )
    for process in mine.unhandled().filter(state=ProcessState.PREPARED, created_at__lt=before):
        yield Lie(
            "R4",
            f"process {process.key}",
            f"it ({process.kind}) should have been launched long ago. The server's log says what stands in the way.",
        )


def strays() -> Iterator[Lie]:
    """R4: every marked process belongs to a run that goes on; every living run folder to a row."""
    before = timezone.now() - GRACE
    marked, alive = list(identities.marked_processes(MARKER)), living()
    named = alive | {one.value for one in marked}
    rows = {row.key: row for row in Process.objects.filter(host=conf.host(), key__in=named)}
    for one in marked:
        row = rows.get(one.value)
        if row is None:
            # Another data folder's agents are no concern of ours; those of a forgotten run in our folder are.
            if (conf.runs() / one.value).exists():
                yield Lie(
                    "R4",
                    f"process {one.value}",
                    f"pid {one.pid} belongs to it, and the database does not know it. Was a backup restored?",
                )
        elif (
            row.state not in (ProcessState.PREPARED, ProcessState.RUNNING)
            and row.ended_at
            and row.ended_at < before
        ):
            yield Lie("R4", f"process {row.key}", f"it is over, but pid {one.pid} of it lives.")
    for key in alive - set(rows):
        yield Lie("R4", f"process {key}", "its runner lives, and the database does not know it.")
