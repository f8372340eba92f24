"""One child of the runner: started so that it dies with the runner, read without blocking, fed through its
stdin.
"""

import _ctypes
import os
import resource
from errno import EAGAIN

from pipeline.processes.records import STDERR, STDOUT
from pipeline.processes.runner_spec import Limits, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

READ_BYTES = 65536
MAX_STDIN_WAITING = 1 << 20  # bytes of messages that a child has not taken yet
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
# The kernel's killer should take a child, whose work is saved, before the server's own processes (range
# -1000 to 1000).
_OOM_SCORE_ADJ = b"500"
HANDLED_SIGNALS = (_signal.SIGCHLD, _signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)
IGNORED_SIGNALS = (_signal.SIGPIPE, _signal.SIGXFSZ)  # a write that fails says so by its error


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Prctl(_ctypes.CFuncPtr):
    _flags_ = 1  # the C calling convention
    _restype_ = _Int


# There is no prctl in the standard library. The ctypes module around _ctypes would cost 2 ms and 0.5 MB
# more (measured).
_prctl = _Prctl(_ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl"))  # type: ignore[arg-type]


def become_subreaper() -> None:
    """Orphans below this process come back to it as its own children, instead of going to init. Raises
    OSError.
    """
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("the kernel refused to make the runner the parent of its orphans (prctl)")


def keep_others_out() -> None:
    """From now on no process of the same user may look into the memory or environment of this one. Raises OSError."""
    if _prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError("the kernel refused to close this process to others (prctl)")


class Child:
    """A started program. `outputs` maps each open pipe to its stream number; `status` is None until it was
    reaped (as from waitpid).

    Raises OSError when it cannot be forked. Whether the program itself could be started shows later: see
    `read_start`.
    """

    def __init__(self, step: Step, limits: Limits) -> None:
        self.step = step
        self.status: int | None = None
        self.started = False
        self.failure = ""  # why the program could not be started
        self._waiting = bytearray((step.stdin or "").encode("utf-8", "surrogateescape"))
        self._close_stdin = not step.keep_stdin
        ours: list[int] = []  # ends to keep
        theirs: list[int] = []
        try:
            if step.stdin is None and not step.keep_stdin:
                theirs.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
                stdin = -1
            else:
                read, stdin = os.pipe2(os.O_CLOEXEC)
                theirs.append(read)
                ours.append(stdin)
                os.set_blocking(stdin, False)
            for _ in ("stdout", "stderr", "start report"):
                read, write = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(read, False)
                ours.append(read)
                theirs.append(write)
            runner = os.getpid()
            # Blocked until the child has given up the runner's handlers: a signal in between would run them
            # there.
            _signal.pthread_sigmask(_signal.SIG_SETMASK, HANDLED_SIGNALS)
            try:
                pid = os.fork()
                if pid == 0:
                    _become(step, limits, theirs, runner)
            finally:
                _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
        except OSError:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self.pid = pid
        self.stdin = stdin
        out, err, self.start_report = ours[-3:]
        self.outputs = {out: STDOUT, err: STDERR}

    def read_start(self) -> bool:
        """Look whether the program started. True when that is known: then `started` is true or `failure`
        says why not.
        """
        if self.start_report < 0:
            return True
        try:
            report = os.read(self.start_report, 4096)
        except BlockingIOError:
            return False
        os.close(self.start_report)
        self.start_report = -1
        self.failure = report.decode("utf-8", "replace")
        self.started = not report
        return True

    @property
    def wants_to_write(self) -> bool:
        return self.stdin >= 0 and bool(self._waiting or self._close_stdin)

    def feed(self) -> None:
        """Write what waits for stdin, as much as fits now, and close it when it should be."""
        while self._waiting and self.stdin >= 0:
            try:
                done = os.write(self.stdin, self._waiting[:READ_BYTES])
            except BlockingIOError:
                return
            except OSError:  # the child closed its stdin: what it does not want to hear is not an error
                self._waiting.clear()
                self._drop_stdin()
                return
            del self._waiting[:done]
        if self._close_stdin:
            self._drop_stdin()

    def say(self, text: str) -> str:
        """Give a text to the child's stdin. Returns why not, or nothing."""
        if self.stdin < 0 or self._close_stdin:
            return "its standard input is closed"
        data = text.encode("utf-8", "surrogateescape")
        if len(self._waiting) + len(data) > MAX_STDIN_WAITING:
            return "it has not read the messages before"
        self._waiting += data
        return ""

    def close_stdin(self) -> None:
        """Close the child's stdin when everything before has been written."""
        self._close_stdin = True

    def close(self) -> None:
        for fd in (*self.outputs, self.start_report):
            if fd >= 0:
                os.close(fd)
        self.outputs = {}
        self.start_report = -1
        self._drop_stdin()

    def _drop_stdin(self) -> None:
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1


def _become(step: Step, limits: Limits, fds: list[int], runner: int) -> None:
    """In the forked process: turn into the step's program, or do its chore. Never returns.

    Everything else that the runner holds open is close-on-exec.
    """
    doing = "preparing the process"
    try:
        os.setsid()
        if _prctl(_PR_SET_PDEATHSIG, int(_signal.SIGKILL), 0, 0, 0) != 0:
            raise OSError(EAGAIN, "the kernel refused to tie the child to its runner (prctl)")
        if os.getppid() != runner:  # it died before the line above: nobody would ever end this child
            os._exit(127)
        for number in (*HANDLED_SIGNALS, *IGNORED_SIGNALS):
            _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
        for source, target in zip(fds, (0, 1, 2), strict=False):
            os.dup2(source, target)
        _raise_oom_score()
        if step.main and limits.nice:
            _yield(limits.nice)
        _lower(resource.RLIMIT_CORE, 0)
        _lower(resource.RLIMIT_NOFILE, limits.nofile)
        _lower(resource.RLIMIT_NPROC, limits.nproc)
        _lower(resource.RLIMIT_FSIZE, limits.fsize)
        if limits.no_new_privs and _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(EAGAIN, "the kernel refused to keep the child from new rights (prctl)")
        if step.chore:
            from pipeline.processes.chores import as_child

            as_child(step.chore, step.env)
        doing = f"entering the folder {step.cwd}"
        os.chdir(step.cwd)
        doing = f"starting the program {step.argv[0]}"
        os.execvpe(step.argv[0], step.argv, step.env)  # noqa: S606
    except BaseException as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else repr(error)
        os.write(fds[3], f"{doing}: {reason}".encode("utf-8", "replace")[:4000])
    finally:
        os._exit(127)


def _raise_oom_score() -> None:
    # Where /proc is read-only, as in some containers, the kernel then chooses by size alone.
    _tell_kernel("/proc/self/oom_score_adj", _OOM_SCORE_ADJ)


def _yield(nice: int) -> None:
    """Let the server, and the making of other copies, go first. Where the kernel weighs sessions and not processes, it is told of the session."""
    os.nice(nice)
    _tell_kernel("/proc/self/autogroup", b"%d" % nice)


def _tell_kernel(place: str, word: bytes) -> None:
    try:
        fd = os.open(place, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, word)
        finally:
            os.close(fd)
    except OSError:
        return


def _lower(limit: int, value: int | None) -> None:
    if value is None:
        return
    hard = resource.getrlimit(limit)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))
