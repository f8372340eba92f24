"""How a running step is ended before its time: its own interrupt, then SIGTERM, then SIGKILL, each by the
monotonic clock.
"""

import os

from pipeline.processes.proc import Process, descendants, signal_exactly

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

BUBBLEWRAP = "bwrap"


class Stop:
    """Why and when a step is ended. Times in monotonic seconds.

    `outcome` is what the exit record will say. `whole_run` is false for a step's own time-out, after which
    an optional step's run goes on.
    """

    __slots__ = ("kill_at", "outcome", "polite", "reason", "term_at", "whole_run")

    def __init__(
        self,
        outcome: str,
        reason: str,
        now: float,
        grace: float,
        *,
        polite: bool = True,
        whole_run: bool = True,
    ) -> None:
        self.outcome = outcome
        self.reason = reason
        self.polite = polite  # the step's interrupt text may be tried first
        self.whole_run = whole_run
        self.term_at = now
        self.kill_at = now + grace

    def hurry(self, now: float, grace: float) -> None:
        """Asked again: the shorter time counts."""
        self.kill_at = min(self.kill_at, now + grace)
        self.term_at = min(self.term_at, self.kill_at)


def terminate_tree(spared: "set[int]") -> int:
    """Send SIGTERM to every process below this one but the spared pids; returns to how many.

    Not to bubblewrap itself: it would take the whole sandbox down at once, before the program inside can
    end by itself (measured).
    """
    sent = 0
    for one in descendants(os.getpid()):
        if one.name != BUBBLEWRAP and one.pid not in spared and not one.dead:
            sent += signal_exactly(one.pid, one.start_time, _signal.SIGTERM)
    return sent


def freeze_and_kill(found: "dict[int, Process]", look: "Callable[[], dict[int, Process]]") -> None:
    """SIGSTOP them all and what they bore meanwhile, then SIGKILL: a process that forks faster than it is
    killed would outrun a plain kill.
    """
    stopped: set[tuple[int, int]] = set()
    for _ in range(50):
        fresh = [one for one in found.values() if (one.pid, one.start_time) not in stopped]
        if not fresh:
            break
        for one in fresh:
            signal_exactly(one.pid, one.start_time, _signal.SIGSTOP)
            stopped.add((one.pid, one.start_time))
        found = look()
    for one in found.values():
        signal_exactly(one.pid, one.start_time, _signal.SIGKILL)


if TYPE_CHECKING:
    from collections.abc import Callable
