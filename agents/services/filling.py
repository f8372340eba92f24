"""Running sessions that fill the disk are stopped before it is full for all.

Counting a copy of some hundred thousand files takes seconds. So it is done only when the disk of the data folder has become fuller by a
good deal, and a piece at each look: the supervisor, which looks, has others to follow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from agents import conf as agents_conf
from agents.models import Session
from agents.services import watching
from agents.states import State, StopCause
from pipeline import conf
from pipeline.processes import disk
from pipeline.processes.disk import Held


class Free(NamedTuple):
    size: int
    entries: int


class Seen:
    """What this process remembers: when and at what it last began to count, and what it is counting (session -> what it holds so far)."""

    def __init__(self) -> None:
        self.at = 0.0
        self.free: Free | None = None
        self.counts: dict[int, Iterator[Held]] = {}

    def has_become_fuller(self, free: Free) -> bool:
        """Whether so much was written that everything is to be counted; if so, that is remembered."""
        if self.free is None:
            self.free = free
        self.free = Free(max(free.size, self.free.size), max(free.entries, self.free.entries))
        written, made = self.free.size - free.size, self.free.entries - free.entries
        if written < agents_conf.DISK_STEP and made < agents_conf.DISK_STEP_ENTRIES:
            return False
        if time.monotonic() - self.at < agents_conf.DISK_PAUSE_SECONDS:
            return False
        self.at, self.free = time.monotonic(), free
        return True


_seen = Seen()


def sweep() -> None:
    """Count a piece more of the running sessions of this host, if much was written. Costs one system call while little is."""
    facts = os.statvfs(conf.home())
    free = Free(facts.f_bavail * facts.f_frsize, facts.f_favail)
    if not _seen.counts and _seen.has_become_fuller(free):
        rows = Session.objects.live().filter(state=State.RUNNING, host=conf.host(), stop_requested_at=None)
        for pk, key in rows.values_list("pk", "key"):
            # Its home and temporary files too.
            _seen.counts[pk] = disk.held([conf.copy_path(key), conf.session_path(key)])
    for pk, count in list(_seen.counts.items()):
        so_far = next(count, None)
        if so_far is None or _judged(pk, so_far):
            del _seen.counts[pk]


def _judged(session_id: int, held: Held) -> bool:
    """Whether nothing more is to be counted of it; a session that holds too much is stopped."""
    rows = Session.objects.filter(pk=session_id, state=State.RUNNING, stop_requested_at=None)
    session = rows.select_related("story__project").first()
    if session is None:
        return True
    most = int(session.entry.get("max_disk") or agents_conf.DISK_MOST)
    if held.size > most:
        why = f"It held more than {most:,} bytes on disk (max_disk). Raise that, or say in the story what it shall not keep."
    elif held.entries > agents_conf.DISK_MOST_ENTRIES:
        why = f"It held more than {agents_conf.DISK_MOST_ENTRIES:,} files. Say in the story what it shall not make."
    else:
        return False
    watching.stop(session, StopCause.DISK_LIMIT, why)
    return True
