"""The runner's birth and death: detach, take the lock for life, say who it is, run, leave the exit record.

The order is what makes a crash readable: lock, then a look at `void`, then everything that can still fail,
then `identity`, and only then the first child. Whoever gives a launch up takes the same lock first
(`spawn.give_up`).
"""
# pathlib would cost every runner 5 ms and 1 MB.
# ruff: noqa: PTH104, PTH108, PTH208

import fcntl
import os
from time import monotonic, sleep, time

from pipeline.processes.proc import boot_id, process
from pipeline.processes.runfolder import (
    CONTROL,
    EXIT,
    IDENTITY,
    LOCK,
    LOG,
    MARKER,
    UNNAMED,
    UNNAMED_ROOM,
    VOID,
    read_all,
    sync_folder,
    write_all,
    write_durably,
)
from pipeline.processes.runner_child import IGNORED_SIGNALS, become_subreaper
from pipeline.processes.runner_json import dumps, loads
from pipeline.processes.runner_log import Log
from pipeline.processes.runner_loop import Result, Runner
from pipeline.processes.runner_spec import Spec, SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

CRASH_POINTS = (
    "runner-after-lock",  # the lock is held, no identity yet
    "runner-after-identity",  # identity is durable, the server has not heard of it, no child yet
    "runner-child-started",  # the program of a step was executed
    "runner-child-exited",  # it has ended; not all of its output was read
    "runner-between-steps",  # before the second and each later step
    "runner-before-exit",  # the log is complete and durable, the exit record is not written
)

if "HUSKIES_CRASH" in os.environ:
    from pipeline.processes.crashpoint import crashpoint as _passage
else:

    def _passage(name: str) -> None:
        """Nobody asked for a crash."""


# Whoever only looks whether the lock is held, holds it for microseconds; another runner holds it for life.
_LOCK_SECONDS = 0.5
_EXIT_BYTES = 4096
_ENV_START = 47  # in /proc/self/stat, counted after the name: the address of the environment


class CannotBegin(Exception):
    """Why this runner does not start, as a sentence."""


def main() -> None:
    """Never returns."""
    _plain_process()
    order = read_all(0)
    if not order:  # the launch came to nothing
        os._exit(0)
    try:
        # The second fork of the pair (the first was the server's): not a session leader, so no terminal can
        # ever become ours.
        os.setsid()
        if os.fork():
            os._exit(0)
    except OSError as error:
        _report({"ready": False, "error": f"The runner could not detach itself: {error.strerror}."})
        os._exit(1)
    code, folder = 1, ""
    try:
        folder, spec = _understood(order)
        code = _live(folder, spec)
    except (CannotBegin, SpecError) as refusal:
        _report({"ready": False, "error": str(refusal)})
    except OSError as error:
        sentence = f"The runner could not begin in {folder}: {error.strerror} ({error.filename or '-'})."
        _report({"ready": False, "error": sentence})
    except BaseException as error:
        _report({"ready": False, "error": f"The runner failed: {error!r}."})
    finally:
        os._exit(code)


def _live(folder: str, spec: Spec) -> int:
    _mark(spec.key)
    os.chdir(folder)
    lock = _take_lock()
    _passage("runner-after-lock")
    if os.path.lexists(VOID):
        raise CannotBegin(
            "The process was given up before its runner started. Start it again under a new key."
        )
    if os.path.lexists(IDENTITY):
        raise CannotBegin(
            "The process was started before, and a run folder is used once. Start it again under a new key."
        )
    log = Log(
        os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600),
        spec.limits.log_bytes,
        spec.limits.keep_ends,
    )
    become_subreaper()
    if os.path.lexists(CONTROL):
        os.unlink(CONTROL)
    runner = Runner(spec, log, _passage)
    exit_file = _reserve_exit()
    identity = _identity()
    write_durably(".", IDENTITY, dumps({"version": 1, "key": spec.key, **identity}).encode())
    _passage("runner-after-identity")
    _report({"ready": True, **identity})
    _go_quiet()
    try:
        ended = runner.run()
        runner.sweep(beyond=True)
        _leave_exit(runner, ended, exit_file)
    except BaseException as error:
        # A fault of our own: say so in the log and leave no child; without an exit record the server sees a
        # lost runner.
        log.note("runner-failed", error=repr(error)[:2000])
        log.flush()
        runner.sweep(beyond=True)
        return 70
    os.close(lock)
    return 0


def _plain_process() -> None:
    """Shake off what the server's process handed down."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:  # the listing's own
                continue
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
    for number in _signal.valid_signals():
        if number not in (_signal.SIGKILL, _signal.SIGSTOP):
            _signal.signal(number, _signal.SIG_IGN if number in IGNORED_SIGNALS else _signal.SIG_DFL)
    os.umask(0o077)


def _understood(order: bytes) -> tuple[str, Spec]:
    """The run folder and what to do there. Raises SpecError."""
    try:
        value = loads(order.decode())
    except ValueError as error:
        raise SpecError(f"The order for this process is not JSON: {error}.") from None
    folder = value.get("folder") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(folder, str):
        raise SpecError("The order for this process cannot be carried out: it names no run folder.")
    return folder, Spec(value.get("spec"))


def _mark(key: str) -> None:
    """Write the key over the room in this process's environment, where `marked` looks for it."""
    mark = f"{MARKER}={key}".encode()
    room = f"{UNNAMED}={'-' * UNNAMED_ROOM}".encode()
    try:
        stat = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
        environ = os.open("/proc/self/environ", os.O_RDONLY | os.O_CLOEXEC)
        memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
        begin = int(os.read(stat, 4096).rpartition(b")")[2].split()[_ENV_START])
        offset = os.read(environ, 1 << 17).find(room)
        if offset >= 0 and len(mark) <= len(room):
            os.pwrite(memory, mark.ljust(len(room), b"\0"), begin + offset)
        for fd in (stat, environ, memory):
            os.close(fd)
    except OSError:  # its lock tells of it too, and its children carry their own
        return


def _take_lock() -> int:
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if monotonic() >= until:
                raise CannotBegin("Another runner already holds the lock of this process.") from None
            sleep(0.005)


def _identity() -> dict[str, object]:
    me = process(os.getpid())
    if me is None:
        raise CannotBegin(
            "The runner cannot see itself in /proc, so nobody could later tell whether it lives. Mount /proc."
        )
    return {"pid": me.pid, "start_time": me.start_time, "boot_id": boot_id()}


def _report(line: dict[str, object]) -> None:
    try:
        write_all(1, dumps(line).encode() + b"\n")
    except OSError:  # whoever spawned us died meanwhile: the supervisor finds the identity
        return


def _go_quiet() -> None:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _reserve_exit() -> int:
    """Room for the exit record, taken while there is some: a full disk must not hide how the run ended."""
    fd = os.open(f"{EXIT}.part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.posix_fallocate(fd, 0, _EXIT_BYTES)
    return fd


def _leave_exit(runner: Runner, ended: Result, fd: int) -> None:
    """The exit record, last of all and durable. When the disk refuses: again each second, as long as the
    lease holds.
    """
    while True:
        runner.log.flush()
        try:
            runner.log.sync()
            break
        except OSError:
            if monotonic() >= runner.lease_at:
                raise
            runner.turn(monotonic() + 1)
    _passage("runner-before-exit")
    reason = ended.get("reason")
    record = dumps(
        {
            "version": 1,
            "key": runner.spec.key,
            "outcome": ended["outcome"],
            "step": ended["step"],
            "code": ended.get("code"),
            "signal": ended.get("signal"),
            "reason": str(reason)[:1000] if reason else None,
            "log_size": runner.log.size,
            "dropped": runner.log.dropped,
            "leftovers": runner.leftovers[:100],
            "verified": not runner.leftovers,
            "started": runner.started,
            "ended": time(),
            "max_rss_kb": runner.max_rss_kb,
            "cpu_seconds": round(runner.cpu_seconds, 6),
            "main_started": runner.main_started,
        }
    ).encode()
    while True:
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            write_all(fd, record)
            os.ftruncate(fd, len(record))
            os.fsync(fd)
            os.rename(f"{EXIT}.part", EXIT)
            sync_folder(".")
            sync_folder("..")
            break
        except OSError:
            if monotonic() >= runner.lease_at:
                raise
            runner.turn(monotonic() + 1)
    runner.control.close()
