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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pipeline.processes.identity import Identity
from pipeline.processes.runfolder import EXIT, IDENTITY, LOCK, MARKER, VOID, write_durably

RUNNER = Path(__file__).with_name("runner.py")
START_SECONDS = 30.0
_PROBE_SECONDS = 0.05
_MAX_REPORT = 65536


class SpawnFailed(Exception):
    """A process could not be started."""


def spawn(runs: Path, key: str, spec: dict[str, Any], python: str = sys.executable) -> Identity:
    """Start a runner for `spec` in the folder runs/<key>/, which is made when absent; returns when its
    identity is durable.

    Raises SpawnFailed with a sentence. After it, as after a crash, `give_up` tells whether a runner lives.
    """
    folder = runs / key
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # An anonymous file and not a pipe: written at once whatever its size, and secrets in it never reach
        # a disk.
        order = os.memfd_create("spec", os.MFD_CLOEXEC)
    except OSError as error:
        raise SpawnFailed(
            f"Process {key} could not be started: its run folder {folder} cannot be made ({error.strerror})."
        ) from error
    try:
        with open(order, "wb", closefd=False) as file:
            file.write(json.dumps(spec).encode())
        os.lseek(order, 0, os.SEEK_SET)
        runner = subprocess.Popen(
            [python, "-I", "-S", str(RUNNER), str(folder.absolute())],
            stdin=order,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(key),
            cwd="/",
        )
    except OSError as error:
        raise SpawnFailed(
            f"Process {key} could not be started: {python} cannot be run ({error.strerror})."
        ) from error
    finally:
        os.close(order)
    with runner:
        said = _first_line(runner, time.monotonic() + START_SECONDS)
        if not said.endswith(b"\n"):
            runner.kill()  # nothing when it has detached, which is the usual case
    return _identity(key, said)


def _environment(key: str) -> dict[str, str]:
    allowed = {name: os.environ[name] for name in ("PATH", "LANG", "HUSKIES_CRASH") if name in os.environ}
    return {**allowed, MARKER: key}


def _first_line(runner: "subprocess.Popen[bytes]", until: float) -> bytes:
    assert runner.stdout is not None  # noqa: S101
    fd = runner.stdout.fileno()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    said = b""
    while len(said) < _MAX_REPORT and (left := until - time.monotonic()) > 0:
        if not poll.poll(left * 1000):
            break
        more = os.read(fd, _MAX_REPORT)
        said += more
        # A warning of the interpreter may stand before the report.
        if not more or (said.endswith(b"\n") and said.splitlines()[-1].startswith(b"{")):
            break
    return said


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
