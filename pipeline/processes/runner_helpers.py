"""Programs that live beside a run's steps and serve them, such as a session's sidecar.

They begin with the run, so that their start costs no time of its own; a step that needs them waits for each one's line `ready`. One
that dies is started again, three times, then the run ends. They are no part of any step: what ends a step or sweeps after
it passes them by, and they end with the run.
"""

import os
from time import monotonic

from pipeline.processes.proc import descendants
from pipeline.processes.runner_child import READ_BYTES, Child
from pipeline.processes.runner_poll import WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from pipeline.processes.runner_loop import Runner
    from pipeline.processes.runner_spec import Step
else:
    import _signal

READY_SECONDS = 30.0
RESTARTS = 3
_END_SECONDS = 5.0
_MOST_SAID = 200  # lines of one helper that are noted
_MOST_LINE = 4096  # bytes


class Helper:
    __slots__ = ("child", "ready", "restarts", "said", "step", "text")

    def __init__(self, step: "Step") -> None:
        self.step = step
        self.child: Child | None = None
        self.ready = False
        self.restarts = 0
        self.said = 0
        self.text = bytearray()  # of a line that is not whole yet


class Helpers:
    """All helpers of a run."""

    def __init__(self, runner: "Runner") -> None:
        self._runner = runner
        self._helpers = [Helper(step) for step in runner.spec.helpers]
        self._ending: dict[int, Helper] = {}
        self._last = ""  # what one said last before it failed
        self.failure = ""  # why the run cannot go on, a sentence

    def __bool__(self) -> bool:
        return bool(self._helpers or self._ending)

    @property
    def pids(self) -> set[int]:
        return {one.child.pid for one in self._helpers if one.child is not None} | set(self._ending)

    def alone(self) -> bool:
        """Whether they are all that lives below the runner; False where there are none."""
        spared = self.pids
        return bool(self) and all(one.dead or one.pid in spared for one in descendants(os.getpid()))

    def begin(self) -> None:
        for one in self._helpers:
            self._start(one)

    def wait(self) -> str:
        """Turn until all are ready; why they are not, or nothing. Returns early when the run is to end."""
        until = monotonic() + READY_SECONDS
        while not all(one.ready for one in self._helpers):
            if self.failure:
                return self.failure
            if monotonic() >= until:
                return f"A helper was not ready within {READY_SECONDS:g} seconds."
            self._runner.turn(until)
            if self._runner.stop is not None:
                return ""
        return self.failure

    def reaped(self, pid: int, status: int) -> bool:
        """Whether this was one of them; if so it is started again, or the run ends."""
        if pid in self._ending:
            self._let_go(self._ending.pop(pid))
            return True
        for one in self._helpers:
            child = one.child
            if child is None or child.pid != pid:
                continue
            for fd in list(child.outputs):
                self._read(one, fd)
            self._let_go(one)
            code = os.waitstatus_to_exitcode(status)
            how = f"with code {code}" if code >= 0 else f"by signal {-code}"
            self._runner.log.note("helper-ended", helper=one.step.name, how=how)
            if one.ready and one.restarts < RESTARTS:
                one.restarts += 1
                self._start(one)
            else:
                said = f" It said: {self._last}" if self._last else ""
                self._fail(f"The helper {one.step.name} ended {how}.{said}")
            return True
        return False

    def end(self) -> None:
        """Kill and reap them all, within five seconds."""
        helpers, self._helpers = self._helpers, []
        self._ending = {one.child.pid: one for one in helpers if one.child is not None}
        for pid in self._ending:
            os.kill(pid, _signal.SIGKILL)
        until = monotonic() + _END_SECONDS
        while self._ending and monotonic() < until:
            self._runner.turn(until)

    def _start(self, one: Helper) -> None:
        one.ready = False
        one.text.clear()
        try:
            child = one.child = Child(one.step, self._runner.limits)
        except OSError as error:
            self._fail(f"The helper {one.step.name} could not start: {error.strerror}.")
            return
        for fd in child.outputs:
            self._runner.watch(fd, lambda fd: self._read(one, fd))
        self._runner.watch(child.start_report, lambda fd: self._started(one, fd))
        self._feed(one)

    def _started(self, one: Helper, fd: int) -> None:
        child = one.child
        if child is None or not child.read_start():
            return
        self._runner.unwatch(fd)
        if child.failure:
            self._last = child.failure

    def _feed(self, one: Helper) -> None:
        child = one.child
        if child is None:
            return
        fd = child.stdin
        child.feed()
        if child.wants_to_write:
            self._runner.watch(fd, lambda _: self._feed(one), WRITE)
        else:
            self._runner.unwatch(fd)

    def _read(self, one: Helper, fd: int) -> None:
        child = one.child
        if child is None or fd not in child.outputs:
            return
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._runner.unwatch(fd)
            del child.outputs[fd]
            os.close(fd)
            return
        one.text += data
        *lines, rest = bytes(one.text).split(b"\n")
        one.text[:] = rest[:_MOST_LINE]
        for line in lines:
            self._hear(one, line[:_MOST_LINE].decode("utf-8", "replace").strip())

    def _hear(self, one: Helper, line: str) -> None:
        if line == "ready":
            one.ready = True
        elif line:
            self._last = line
            one.said += 1
            if one.said <= _MOST_SAID:
                self._runner.log.note("helper", helper=one.step.name, text=line)

    def _let_go(self, one: Helper) -> None:
        child = one.child
        if child is None:
            return
        for fd in (*child.outputs, child.start_report, child.stdin):
            if fd >= 0:
                self._runner.unwatch(fd)
        child.close()
        one.child = None

    def _fail(self, sentence: str) -> None:
        self.failure = self.failure or sentence
        if self._runner.step is not None and self._runner.child is not None:
            self._runner.end_run("helper_lost", sentence, self._runner.limits.grace)
