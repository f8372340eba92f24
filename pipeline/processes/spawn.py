"""Starts runners, and tells from their run folders what became of them.

The kernel answers who lives: a runner holds the lock in its folder for as long as it lives. Whoever gives a
launch up takes the same lock first, so that a runner that comes late finds `void` and goes home.
"""

import fcntl
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pipeline.processes.identity import Identity
from pipeline.processes.runfolder import (
    EXIT,
    IDENTITY,
    LAUNCH,
    LOCK,
    UNNAMED,
    UNNAMED_ROOM,
    VOID,
    write_durably,
)

RUNNER = Path(__file__).with_name("runner.py")
START_SECONDS = 30.0
SPARE_PAUSE = 0.5  # seconds; at once, its start would compete with that of the child just launched
_PROBE_SECONDS = 0.05
_MAX_REPORT = 65536


class SpawnFailed(Exception):
    """A process could not be started."""


class Begun:
    """A runner whose interpreter starts while its order is still being made. Without an order it goes home."""

    def __init__(self, python: str = sys.executable) -> None:
        """Raises SpawnFailed with a sentence."""
        self.launcher = os.getpid()
        try:
            self._runner = subprocess.Popen(
                [python, "-I", "-S", str(RUNNER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd="/",
                bufsize=0,
            )
        except OSError as error:
            raise SpawnFailed(
                f"A process could not be started: {python} cannot be run ({error.strerror})."
            ) from error
        self.pid = self._runner.pid

    def __enter__(self) -> "Begun":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Its end, unless it has detached, which is the usual case. In a fork of its launcher: let go of it."""
        for pipe in (self._runner.stdin, self._runner.stdout):
            if pipe is not None:
                pipe.close()
        if self.launcher == os.getpid():
            self._runner.kill()
            self._runner.wait()

    def waits(self) -> bool:
        """Whether it is ours and lives: a fork of the launcher must not use its parent's."""
        return self.launcher == os.getpid() and self._runner.poll() is None

    def order(self, runs: Path, key: str, spec: dict[str, Any]) -> Identity:
        """Have it carry out `spec` in the folder runs/<key>/, which is made when absent; returns when its
        identity is durable.

        Raises SpawnFailed with a sentence. After it, as after a crash, `give_up` tells whether a runner lives.
        """
        folder = runs / key
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SpawnFailed(
                f"Process {key} could not be started: its run folder {folder} cannot be made ({error.strerror})."
            ) from error
        until = time.monotonic() + START_SECONDS
        self.hand_over(json.dumps({"folder": str(folder.absolute()), "spec": spec}).encode(), until)
        return _identity(key, self.said(until))

    def hand_over(self, order: bytes, until: float) -> None:
        """Through a pipe, so that secrets in an order never reach a disk. What a runner says that does not take
        it is read afterwards."""
        assert self._runner.stdin is not None  # noqa: S101
        fd = self._runner.stdin.fileno()
        os.set_blocking(fd, False)
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        rest = memoryview(order)
        with suppress(BrokenPipeError):
            while rest and (left := until - time.monotonic()) > 0:
                if poll.poll(min(left, START_SECONDS) * 1000):
                    rest = rest[os.write(fd, rest) :]
        self._runner.stdin.close()  # a part of an order is no order

    def said(self, until: float) -> bytes:
        """Its first line, or what it said before it ended."""
        assert self._runner.stdout is not None  # noqa: S101
        fd = self._runner.stdout.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        said = b""
        while len(said) < _MAX_REPORT and (left := until - time.monotonic()) > 0:
            if not poll.poll(min(left, START_SECONDS) * 1000):
                break
            more = os.read(fd, _MAX_REPORT)
            said += more
            # A warning of the interpreter may stand before the report.
            if not more or (said.endswith(b"\n") and said.splitlines()[-1].startswith(b"{")):
                break
        return said


def spawn(runs: Path, key: str, spec: dict[str, Any], python: str = sys.executable) -> Identity:
    """`Begun` and `order` in one."""
    with Begun(python) as runner:
        return runner.order(runs, key, spec)


class Spare:
    """One runner in advance, for a launcher that lives long: its interpreter's start, 20 to 30 ms, is then not
    waited for (measured). It dies with its launcher."""

    def __init__(self, pause: float = SPARE_PAUSE) -> None:
        self.kept = False  # whether this process, and its forks from now on, keep one
        self.begun: Begun | None = None
        self._pause = pause
        self._due = False
        self._lock = threading.Lock()

    def take(self) -> Begun:
        """The spare one, or a fresh one. Raises SpawnFailed."""
        with self._lock:
            begun, self.begun = self._living(), None
        return begun or Begun()

    def refill(self) -> None:
        """Begin the next one soon, where one is kept."""
        if self.kept and not self._due:
            self._due = True
            timer = threading.Timer(self._pause, self._begin)
            timer.daemon = True
            timer.start()

    def _begin(self) -> None:
        self._due = False
        with self._lock:
            self.begun = self._living()
            if self.begun is None:
                with suppress(SpawnFailed):  # whoever needs it will try again, and say so
                    self.begun = Begun()

    def _living(self) -> Begun | None:
        if self.begun is None or self.begun.waits():
            return self.begun
        self.begun.close()
        return None


spare = Spare()


def _environment() -> dict[str, str]:
    allowed = {name: os.environ[name] for name in ("PATH", "LANG", "HUSKIES_CRASH") if name in os.environ}
    return {**allowed, UNNAMED: "-" * UNNAMED_ROOM}


def _identity(key: str, said: bytes) -> Identity:
    text = said.decode("utf-8", "replace").strip()
    try:
        report = json.loads(text.splitlines()[-1])
    except (ValueError, IndexError):
        report = None
    if not isinstance(report, dict):
        what = (
            f"its runner said: {text[-1000:]}" if text else "its runner said nothing and may have been killed"
        )
        raise SpawnFailed(f"Process {key} could not be started: {what}.")
    if report.get("ready") is not True:
        raise SpawnFailed(f"Process {key} could not be started. {report.get('error')}")
    return Identity(report["pid"], report["start_time"], report["boot_id"])


def give_up(runs: Path, key: str) -> Literal["void", "alive", "finished"]:
    """Make sure that this launch never begins late, or say why that cannot be.

    "void": no runner will ever start here. "alive": the lock is held (a runner lives, or is just starting:
    adopt it, or ask again). "finished": a runner lived and is dead; without an exit record (`read_exit`) it
    was lost.
    """
    folder = runs / key
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _lock(folder, fcntl.LOCK_EX) as free:
        if not free:
            return "alive"
        if (folder / EXIT).exists() or (folder / IDENTITY).exists():
            return "finished"
        if not (folder / VOID).exists():
            write_durably(str(folder), VOID, json.dumps({"version": 1, "given_up": time.time()}).encode())
        return "void"


@contextmanager
def launching(runs: Path, key: str) -> Iterator[bool]:
    """Yields whether this launch is ours: the worker and the sweep may try at once, and the one that came second
    must not give up what the first is about to start. The kernel lets go of it when a launcher dies."""
    folder = runs / key
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder / LAUNCH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)


def touched(runs: Path, key: str) -> bool:
    """Whether a runner or who gave it up has been in the folder: else nothing of it ever began."""
    return any((runs / key / name).exists() for name in (LOCK, VOID, IDENTITY))


def runner_alive(runs: Path, key: str) -> bool:
    """Whether a runner holds the lock of this key."""
    folder = runs / key
    if not (folder / LOCK).exists():
        return False
    with _lock(folder, fcntl.LOCK_SH) as free:
        return not free


@contextmanager
def _lock(folder: Path, kind: int) -> Iterator[bool]:
    """Yields whether the lock could be had. A look of another process lasts microseconds, so a held lock is
    tried again for a moment.
    """
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + _PROBE_SECONDS
        free = False
        while not free:
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
                free = True
            except BlockingIOError:
                # Against a runner, which has an identity soon after its lock, there is nothing to wait for.
                if time.monotonic() >= until or (folder / IDENTITY).exists():
                    break
                time.sleep(0.002)
        yield free
    finally:
        os.close(fd)


def read_identity(runs: Path, key: str) -> Identity | None:
    """Which process the runner is or was; None when none has begun. Raises ValueError when the file is
    damaged.
    """
    try:
        return Identity.from_json((runs / key / IDENTITY).read_text())
    except FileNotFoundError:
        return None


def read_exit(runs: Path, key: str) -> dict[str, Any] | None:
    """The exit record; None when there is none. Raises ValueError when the file is damaged."""
    try:
        value = json.loads((runs / key / EXIT).read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"The exit record of process {key} is damaged: it is not a JSON object.")
    return value
