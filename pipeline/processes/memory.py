"""How much memory the processes of each run hold, by one look at /proc."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.processes import proc
from pipeline.processes.runfolder import MARKER

PAGE = os.sysconf("SC_PAGE_SIZE")


def by_key() -> dict[str, int]:
    """Key of a run -> resident bytes of all living processes that carry its mark, its runner too. Shared pages count once per process.

    The proportional share would be exact; it costs the kernel a walk of every page table, and a limit of memory may bite a little early.
    """
    found: dict[str, int] = {}
    for one in proc.marked(MARKER, None):
        found[one.value] = found.get(one.value, 0) + resident(one.pid)
    return found


def resident(pid: int) -> int:
    """Bytes of a process in memory; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0
