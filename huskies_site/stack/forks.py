"""Children of the preloaded parent: parts that live long, and errands whose answer is waited for."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
MAX_ANSWER = 1 << 20
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True)
close_in_children: list[int] = []
"""Descriptors of the parent alone. A child that kept the lock of the data folder would hold it after its parent's death."""


class ErrandFailed(Exception):
    """A child that was to do something did not."""


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, also if that happened just before."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def die_together() -> None:
    """From now on every fork of this process dies with it: django-q2's children live on without that (measured, stack.md 3b)."""
    forker = [os.getpid()]

    def before() -> None:
        forker[0] = os.getpid()

    os.register_at_fork(before=before, after_in_child=lambda: die_with(forker[0]))


def fork(run: Callable[[], int | None], *, keep: tuple[int, ...] = ()) -> int:
    """Run a function in a child with a session of its own; returns its pid. `keep`: descriptors of close_in_children that it needs."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        die_with(parent)
        signal.set_wakeup_fd(-1)
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        for fd in close_in_children:
            if fd not in keep:
                with contextlib.suppress(OSError):
                    os.close(fd)
        code = run() or 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class Errand:
    """A function that runs in a child and answers with JSON data, while the parent goes on."""

    def __init__(self, run: Callable[[], Any], seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self.fd, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._said = b""

        def answer() -> int:
            os.set_blocking(writing, True)
            try:
                said = {"answer": run()}
            except Exception as error:
                # Its first line, for a person; the whole of it only where someone asked for it.
                if os.environ.get("HUSKIES_DEBUG"):
                    traceback.print_exc()
                said = {
                    "failed": f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".splitlines()[
                        0
                    ]
                }
            with os.fdopen(writing, "w", encoding="utf-8") as out:
                json.dump(said, out)
            return 0

        try:
            self.pid = fork(answer)
        finally:
            os.close(writing)

    def read(self) -> bool:
        """Take what is there; True when the child has closed its end."""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self.fd, 65536):
                self._said += more
                if len(self._said) > MAX_ANSWER:
                    break
            return True
        return False

    def end(self) -> Any:
        """The answer; the child is dead afterwards. Raises ErrandFailed when it failed, died or is not done yet."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # it is not waited for yet, so its number is still its own
        os.waitpid(self.pid, 0)
        os.close(self.fd)
        try:
            said = json.loads(self._said)
        except ValueError:
            said = {"failed": "it did not answer"}
        if "failed" in said:
            raise ErrandFailed(said["failed"])
        return said["answer"]


def in_child(run: Callable[[], Any], seconds: float) -> Any:
    """The answer (JSON data) of a function that runs in a child. Raises ErrandFailed."""
    errand = Errand(run, seconds)
    while (left := errand.until - time.monotonic()) > 0:
        select.select([errand.fd], [], [], left)
        if errand.read():
            break
    return errand.end()
