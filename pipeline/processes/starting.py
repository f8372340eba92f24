"""Begins runners: each in an interpreter of its own, or, for a launcher that lives long, as a fork of one that waits.

A fork costs 3 ms of processor time where an interpreter's start costs 25, and 45 more for the modules of a chore (measured). The fork server
(`fork_server.py`) has one thread and nothing of its launcher's but a socket: it ends with the last process that holds the other end.
"""

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.processes.identity import Identity
from pipeline.processes.runfolder import UNNAMED, UNNAMED_ROOM

RUNNER = Path(__file__).with_name("runner.py")
FORK_SERVER = Path(__file__).with_name("fork_server.py")
START_SECONDS = 30.0
_MAX_REPORT = 65536


class SpawnFailed(Exception):
    """A process could not be started."""


class Begun:
    """A runner that waits for its order while that is being made. Without one it goes home."""

    def __init__(self) -> None:
        """Raises SpawnFailed."""
        try:
            theirs, self._order = os.pipe()
            self._report, report = os.pipe()
        except OSError as error:
            raise SpawnFailed(f"A process could not be started: {error.strerror}.") from error
        self.theirs = [theirs, report]
        self._runner: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Begun":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def alone(self, python: str = sys.executable) -> "Begun":
        """Begin it in an interpreter of its own. Raises SpawnFailed with a sentence."""
        order, report = self.theirs
        try:
            self._runner = _program(python, RUNNER, order, report)
        except SpawnFailed:
            self.close()
            raise
        self._drop_theirs()
        return self

    def forked(self, server: socket.socket) -> "Begun":
        """Have the fork server begin it. Raises OSError when that is gone."""
        socket.send_fds(server, [b"!"], self.theirs)
        self._drop_theirs()
        return self

    @property
    def pid(self) -> int:
        """Of one that is alone, before it has detached."""
        assert self._runner is not None  # noqa: S101
        return self._runner.pid

    def close(self) -> None:
        """Let go of it: usually it has detached; without an order it ends."""
        self._drop_theirs()
        self._drop_order()
        os.close(self._report)
        if self._runner is not None:
            self._runner.kill()
            self._runner.wait()

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
        os.set_blocking(self._order, False)
        poll = select.poll()
        poll.register(self._order, select.POLLOUT)
        rest = memoryview(order)
        with suppress(BrokenPipeError):
            while rest and (left := until - time.monotonic()) > 0:
                if poll.poll(min(left, START_SECONDS) * 1000):
                    rest = rest[os.write(self._order, rest) :]
        self._drop_order()  # a part of an order is no order

    def said(self, until: float) -> bytes:
        """Its first line, or what it said before it ended."""
        poll = select.poll()
        poll.register(self._report, select.POLLIN)
        said = b""
        while len(said) < _MAX_REPORT and (left := until - time.monotonic()) > 0:
            if not poll.poll(min(left, START_SECONDS) * 1000):
                break
            more = os.read(self._report, _MAX_REPORT)
            said += more
            # A warning of the interpreter may stand before the report.
            if not more or (said.endswith(b"\n") and said.splitlines()[-1].startswith(b"{")):
                break
        return said

    def _drop_order(self) -> None:
        if self._order >= 0:
            os.close(self._order)
            self._order = -1

    def _drop_theirs(self) -> None:
        while self.theirs:
            os.close(self.theirs.pop())


class ForkServer:
    """Begins runners as forks once it was started, before that each by itself. Processes forked from the one that started it share it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def start(self) -> socket.socket:
        """Our connection to a new one. Raises SpawnFailed."""
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = _program(sys.executable, FORK_SERVER, theirs.fileno())
        self._socket, self._owner = ours, os.getpid()
        return ours

    def begin(self) -> Begun:
        """A runner that waits for its order. Raises SpawnFailed."""
        begun = Begun()
        with self._lock, suppress(SpawnFailed):
            server = self._socket
            while server is not None:
                try:
                    return begun.forked(server)
                except ConnectionError:  # it was killed: the next one serves this process
                    server = self.start()
                except OSError:
                    break
        return begun.alone()

    @property
    def pid(self) -> int:
        """Of the one that this process started, 0 = none."""
        return self._server.pid if self._server is not None and self._owner == os.getpid() else 0

    def close(self) -> None:
        """Let go of it: it ends with the last that holds it, and what it has begun goes on."""
        if self._socket is not None:
            self._socket.close()
        if self.pid and self._server is not None:
            self._server.kill()
            self._server.wait()
        self._socket = self._server = None


fork_server = ForkServer()


def _program(python: str, file: Path, stdin: int, out: int | None = None) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            [python, "-I", "-S", str(file)], env=_environment(), cwd="/", stdin=stdin, stdout=out, stderr=out
        )
    except OSError as error:
        raise SpawnFailed(
            f"A process could not be started: {python} cannot be run ({error.strerror})."
        ) from error


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
