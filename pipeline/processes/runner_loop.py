"""One run: its steps in order, each with its limits. The runner sleeps until a byte, a death, a request or
a deadline, and is otherwise free.

A step is over when its own program has exited; what it left behind is swept before the next step begins.
"""

import os
from time import monotonic, time

from pipeline.processes.proc import Process, descendants, marked
from pipeline.processes.runfolder import MARKER
from pipeline.processes.runner_child import HANDLED_SIGNALS, READ_BYTES, Child
from pipeline.processes.runner_control import Control
from pipeline.processes.runner_files import carry_out
from pipeline.processes.runner_helpers import Helpers
from pipeline.processes.runner_log import Log
from pipeline.processes.runner_poll import WRITE, Poll
from pipeline.processes.runner_requests import answer
from pipeline.processes.runner_spec import Spec, Step
from pipeline.processes.runner_stop import Stop, freeze_and_kill, terminate_tree
from pipeline.processes.runner_turns import Turns

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
else:
    import _signal

DRAIN_SECONDS = 0.5  # a grandchild may hold the output open for ever
SWEEP_SECONDS = 5.0
_LAST_READS = 16  # of 64 KiB: a pipe holds no more than 1 MiB by default

Result = dict[str, object]  # outcome, code, signal, reason: as in the exit record


class Runner:
    """Carries out a spec, standing in its run folder. `passage` is called at each named crash point. Raises
    OSError when it cannot begin.
    """

    def __init__(self, spec: Spec, log: Log, passage: "Callable[[str], None]") -> None:
        self.spec = spec
        self.limits = spec.limits
        self.log = log
        self.step: Step | None = None
        self.child: Child | None = None
        self.stop: Stop | None = None
        self.main_started = False
        self.leftovers: list[int] = []
        self.cpu_seconds = 0.0
        self.max_rss_kb = 0
        self.started = time()
        begun = monotonic()
        self.lease_at = begun + self.limits.lease
        self._wall_at = None if self.limits.wall is None else begun + self.limits.wall
        self._last_byte = begun
        self._swept_beyond = False  # since the last program ran
        self._childless = True  # at the last look: for a subreaper, no child means no descendant
        self.turns = Turns()
        self._passage = passage
        self._poll = Poll()
        wake, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        for number in HANDLED_SIGNALS:
            _signal.signal(number, _noted)
        self._poll.watch(wake, self._on_signal)
        self.control = Control(lambda request: answer(self, request), self._poll)
        self.watch, self.unwatch = self._poll.watch, self._poll.unwatch
        self.helpers = Helpers(self)

    def run(self) -> Result:
        """The helpers, and beside them all steps in order. Returns how the run ended, with the name of the last step."""
        if not self.helpers:
            return self._run_steps()
        self.helpers.begin()
        try:
            return self._run_steps()
        finally:
            self.helpers.end()

    def _run_steps(self) -> Result:
        main: Result = {}
        ended: Result = {}
        for number, step in enumerate(self.spec.steps):
            if number:
                self._passage("runner-between-steps")
            self.step = step
            ended = {"step": step.name, **self._run_step(step)}
            self.step = None
            if self.leftovers or (self.stop is not None and self.stop.whole_run):
                return ended
            self.stop = None
            if step.main:
                main = ended
            if (ended["outcome"] != "exited" or ended["code"] != 0) and not step.optional:
                if ended["outcome"] == "exited" and not step.main:
                    ended["outcome"] = "step_failed"
                    ended["reason"] = f"The step {step.name} failed: {_exit_words(ended)}."
                return ended
        if main:
            return {**main, "step": ended["step"]}
        return (
            ended if ended["outcome"] == "exited" else {"step": ended["step"], "outcome": "exited", "code": 0}
        )

    def turn(self, until: float) -> None:
        """Sleep until something happens, at most until then (monotonic seconds), and handle it."""
        client = self.control.deadline()
        self._poll.wait(until if client is None else min(until, client))
        if client is not None:
            self.control.expire(monotonic())
        self.log.flush()

    def feed(self) -> None:
        """Something waits for the child's stdin: write it when there is room."""
        if self.child is not None and self.child.wants_to_write:
            self._poll.watch(self.child.stdin, self._on_stdin, WRITE)

    # What wakes the loop

    def _on_signal(self, fd: int) -> None:
        for number in os.read(fd, 512):
            if number != _signal.SIGCHLD:
                self.end_run("stopped", f"the runner got signal {number}", self.limits.grace)
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if pid == 0:
                self._childless = False
                return
            if self.helpers and self.helpers.reaped(pid, status):
                continue
            self.cpu_seconds += usage.ru_utime + usage.ru_stime
            self.max_rss_kb = max(self.max_rss_kb, usage.ru_maxrss)
            if self.child is not None and pid == self.child.pid:
                self.child.status = status

    def _on_output(self, fd: int) -> None:
        self._read(fd)

    def _read(self, fd: int) -> bool:
        """One read from a pipe of the child; False when there is no more now."""
        child = self.child
        if child is None:
            return False
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._poll.unwatch(fd)
            del child.outputs[fd]
            os.close(fd)
            return False
        self._last_byte = monotonic()
        self.log.feed(child.outputs[fd], data)
        return True

    def _on_start_report(self, fd: int) -> None:
        child = self.child
        if child is None or not child.read_start():
            return
        self._poll.unwatch(fd)
        if child.started:
            self.main_started = self.main_started or child.step.main
            self.log.note("started", step=child.step.name, pid=child.pid)
            self.log.flush()
            self._passage("runner-child-started")

    def _on_stdin(self, fd: int) -> None:
        if self.child is not None:
            self.child.feed()
            if not self.child.wants_to_write:
                self._poll.unwatch(fd)

    # One step

    def _run_step(self, step: Step) -> Result:
        self._enforce()
        if self.stop is not None:
            return self._stopped(self.stop)
        self.log.note("step-start", step=step.name, main=step.main)
        self.log.flush()
        result = self._helped() if step.helped and self.helpers else None
        if result is None:
            result = self._run_program(step) if step.files is None else self._run_files(step)
        self.log.note("step-end", step=step.name, **result)
        self.log.flush()
        return result

    def _helped(self) -> "Result | None":
        """Wait for the helpers; how the step ended if it cannot begin."""
        why = self.helpers.wait()
        if self.stop is not None:
            return self._stopped(self.stop)
        return {"outcome": "helper_lost", "code": None, "signal": None, "reason": why} if why else None

    def _stopped(self, stop: Stop) -> Result:
        return {"outcome": stop.outcome, "code": None, "signal": None, "reason": stop.reason}

    def _run_files(self, step: Step) -> Result:
        for operation in step.files or []:
            try:
                for _ in carry_out(operation):
                    self.turn(0)
                    self._enforce()
                    if self.stop is not None:
                        return self._stopped(self.stop)
            except (OSError, RecursionError) as error:
                words = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
                reason = f"The step {step.name} failed at {operation[0]} {operation[1]}: {words}."
                return {"outcome": "step_failed", "code": None, "signal": None, "reason": reason}
        return {"outcome": "exited", "code": 0, "signal": None}

    def _run_program(self, step: Step) -> Result:
        begun = self._last_byte = monotonic()
        try:
            child = self.child = Child(step, self.limits)
        except OSError as error:
            reason = f"The step {step.name} could not start: no new process can be made ({error.strerror})."
            return {"outcome": "spawn_failed", "code": None, "signal": None, "reason": reason}
        self._childless = self._swept_beyond = False
        for fd in child.outputs:
            self._poll.watch(fd, self._on_output)
        self._poll.watch(child.start_report, self._on_start_report)
        self.turns.follow(step, self.log)
        self.feed()
        # When the step is being ended, what stands below the program gets the same time as the program.
        while child.status is None or (
            self.stop is not None and not (self._childless or self.helpers.alone())
        ):
            self._enforce(begun)
            self.turns.close_when_over(child, self.feed)
            if self.stop is not None and self._pursue(self.stop):
                break
            self.turn(self._deadline(begun))
        self._passage("runner-child-exited")
        self._drain(child)
        self.sweep(beyond=step.main)
        self._give_up(child)
        self.log.end_streams()
        self.log.unmark()
        self.child = None
        return self._result(child)

    def _drain(self, child: Child) -> None:
        """Read what the program wrote before it ended, for a moment also what a grandchild still writes."""
        until = monotonic() + DRAIN_SECONDS
        while child.status is not None and child.outputs and (now := monotonic()) < until:
            if self.stop is not None and self.stop.kill_at <= now:
                return
            self.turn(until)

    def _give_up(self, child: Child) -> None:
        for fd in list(child.outputs):
            reads = 0
            while reads < _LAST_READS and self._read(fd):
                reads += 1
        if child.start_report >= 0:
            self._on_start_report(child.start_report)
        for fd in (*child.outputs, child.start_report, child.stdin):
            self._poll.unwatch(fd)
        child.close()

    def _result(self, child: Child) -> Result:
        result: Result = {"outcome": "exited", "code": None, "signal": None}
        if child.status is not None:
            code = os.waitstatus_to_exitcode(child.status)
            result["code" if code >= 0 else "signal"] = abs(code)
        if child.failure:
            reason = f"The step {child.step.name} could not start: {child.failure}."
            result |= {"outcome": "spawn_failed", "code": None, "reason": reason}
        if self.stop is not None:
            result |= {"outcome": self.stop.outcome, "reason": self.stop.reason}
        return result

    # Limits, and ending before time

    def end_run(self, outcome: str, reason: str, grace: float, *, polite: bool = True) -> None:
        """End the run: the first reason stays, a later one can only shorten the time."""
        now = monotonic()
        if self.stop is not None and self.stop.whole_run:
            self.stop.hurry(now, grace)
        else:
            self._begin_stop(Stop(outcome, reason, now, grace, polite=polite))

    def _begin_stop(self, stop: Stop) -> None:
        self.stop = stop
        self.log.note(
            "stop", outcome=stop.outcome, reason=stop.reason, step=self.step.name if self.step else None
        )
        child = self.child
        if stop.polite and child is not None and child.step.interrupt and not child.say(child.step.interrupt):
            # Closed after it: a program that takes lines from stdin lives until that ends.
            child.close_stdin()
            self.feed()
            stop.term_at += (stop.kill_at - stop.term_at) / 2
            self.log.note("interrupt", step=child.step.name)

    def _pursue(self, stop: Stop) -> bool:
        """Go on ending the step; True when it is time for SIGKILL."""
        now = monotonic()
        if stop.kill_at <= now:
            return True
        if stop.term_at <= now:
            stop.term_at = stop.kill_at
            self.log.note("terminate", processes=terminate_tree(spared=self.helpers.pids))
        return False

    def _enforce(self, begun: float | None = None) -> None:
        """Compare every limit with the clock. `begun`: when the running program was started, None outside
        of a program.
        """
        now = monotonic()
        limits, step, grace = self.limits, self.step, self.limits.grace
        if self.lease_at <= now:
            self.end_run("lease", "no server renewed the lease of this process", grace)
        elif self._wall_at is not None and self._wall_at <= now:
            self.end_run("timeout", f"it ran for {limits.wall:g} seconds", grace)
        if self.stop is not None or step is None or begun is None:
            return
        if self.log.full and not limits.keep_ends:
            self.end_run("output_limit", f"it wrote more than {limits.log_bytes} bytes", grace, polite=False)
        elif step.main and limits.silence is not None and self._last_byte + limits.silence <= now:
            self.end_run("silent", f"it wrote nothing for {limits.silence:g} seconds", grace, polite=False)
        elif step.timeout is not None and begun + step.timeout <= now:
            reason = f"the step {step.name} ran for {step.timeout:g} seconds"
            self._begin_stop(Stop("timeout", reason, now, grace, whole_run=not step.optional))

    def _deadline(self, begun: float) -> float:
        """When `_enforce` or `_pursue` will next have something to do."""
        times = [at for at in (self.lease_at, self.turns.close_at) if at is not None]
        if self.stop is not None:
            return min(self.stop.term_at, self.stop.kill_at)
        if self._wall_at is not None:
            times.append(self._wall_at)
        if self.step is not None and self.step.timeout is not None:
            times.append(begun + self.step.timeout)
        if self.step is not None and self.step.main and self.limits.silence is not None:
            times.append(self._last_byte + self.limits.silence)
        return min(times)

    def sweep(self, beyond: bool) -> None:
        """Kill and reap whatever lives below the runner, and with `beyond` what carries this run's marker
        elsewhere.

        Bounded: what is still there after 5 seconds (a process in the kernel's hands, or another user's)
        goes to `leftovers`.
        """
        if beyond and self._swept_beyond:
            return
        until = monotonic() + SWEEP_SECONDS
        me = os.getpid()
        self.leftovers = []

        def look() -> dict[int, Process]:
            self._reap()
            found = [] if self._childless else descendants(me)
            if beyond:
                found += marked(MARKER, self.spec.key)
            spared = {me} | self.helpers.pids
            return {one.pid: one for one in found if one.pid not in spared and not one.dead}

        found = look()
        if found:
            self.log.note(
                "sweep", processes=len(found), names=sorted({one.name for one in found.values()})[:20]
            )
        while found or not (self._childless or self.helpers):
            if monotonic() >= until:
                self.leftovers = sorted(found)
                self.log.note("leftovers", pids=self.leftovers)
                return
            freeze_and_kill(found, look)
            # A death below wakes the turn, one elsewhere does not.
            self.turn(min(until, monotonic() + 0.05))
            found = look()
        self._swept_beyond = beyond


def _noted(number: int, frame: object) -> None:
    """The signal's number is in the wake-up pipe: the loop acts on it there."""


def _exit_words(ended: Result) -> str:
    return (
        f"it ended with code {ended['code']}"
        if ended["signal"] is None
        else f"it was ended by signal {ended['signal']}"
    )
