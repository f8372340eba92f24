"""Starts runners, and tells from their run folders what became of them.

The kernel answers who lives: a runner holds the lock in its folder for as long as it lives. Whoever gives a
launch up takes the same lock first, so that a runner that comes late finds `void` and goes home.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pipeline.processes.identity import Identity
from pipeline.processes.runfolder import ANSWER, EXIT, IDENTITY, LAUNCH, LOCK, VOID, write_durably
from pipeline.processes.starting import Begun

_PROBE_SECONDS = 0.05


def spawn(runs: Path, key: str, spec: dict[str, Any], python: str = sys.executable) -> Identity:
    """Begin a runner by itself and give it its order. Raises SpawnFailed."""
    with Begun().alone(python) as runner:
        return runner.order(runs, key, spec)


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


def read_answer(runs: Path, key: str) -> dict[str, Any] | None:
    """What the chore of this process came to (chores.py); None when it did not get to its end."""
    try:
        value = json.loads((runs / key / ANSWER).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def read_exit(runs: Path, key: str) -> dict[str, Any] | None:
    """The exit record; None when there is none. Raises ValueError when the file is damaged."""
    try:
        value = json.loads((runs / key / EXIT).read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"The exit record of process {key} is damaged: it is not a JSON object.")
    return value
