"""Ends what a lost runner left behind: every process that carries the marker of one key."""

import time

from pipeline.processes import proc
from pipeline.processes.proc import Process
from pipeline.processes.runfolder import MARKER
from pipeline.processes.runner_stop import freeze_and_kill

_PAUSE = 0.01  # seconds between looks; the dead are other processes' children, so nothing wakes us


def sweep_marked(key: str, timeout: float = 5.0) -> list[int]:
    """SIGSTOP, then SIGKILL, every process marked with this key, until none is left or `timeout` seconds
    have passed.

    Returns the pids that are still there: empty means verified. The runner carries the mark too, so this is
    only for keys whose lock is free.
    """

    def look() -> dict[int, Process]:
        return {one.pid: one for one in proc.marked(MARKER, key)}

    until = time.monotonic() + timeout
    while found := look():
        freeze_and_kill(found, look)
        if time.monotonic() >= until:
            return sorted(look())
        time.sleep(_PAUSE)
    return []
