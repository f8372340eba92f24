"""Real runners in a folder of the test's own, and how a test waits for them: with a deadline."""

import json
import os
import secrets
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.processes.control import ask
from pipeline.processes.identity import Identity, marked_processes, open_pidfd
from pipeline.processes.logfile import NOTE, Record, read_records
from pipeline.processes.runfolder import MARKER
from pipeline.processes.spawn import read_exit, read_identity, spawn

PATIENCE = 20.0  # seconds until a wait has failed; nothing here takes one
PATH = os.environ["PATH"]


def program(source: str, name: str = "agent", **fields: Any) -> dict[str, Any]:
    """A main step that runs Python source."""
    argv = [sys.executable, "-I", "-S", "-c", source]
    return {"name": name, "argv": argv, "cwd": "/", "env": {"PATH": PATH}, "main": True, **fields}


def shell(script: str, name: str = "agent", **fields: Any) -> dict[str, Any]:
    """A main step that runs a shell script."""
    return {
        "name": name,
        "argv": ["sh", "-c", script],
        "cwd": "/",
        "env": {"PATH": PATH},
        "main": True,
        **fields,
    }


def until(true: Callable[[], Any], what: str, fd: int | None = None) -> Any:
    """Wait until something is true; looks again when `fd` becomes readable, and every few milliseconds."""
    poll = select.poll()
    if fd is not None:
        poll.register(fd, select.POLLIN)
    end = time.monotonic() + PATIENCE
    while not (value := true()):
        assert time.monotonic() < end, f"{what}: not within {PATIENCE:g} seconds"
        poll.poll(5)
    return value


def wait_end(identity: Identity) -> None:
    """Wait until this process has ended."""
    fd = open_pidfd(identity)
    if fd is None:
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), f"{identity} still runs after {PATIENCE:g} seconds"
    finally:
        os.close(fd)


class Run:
    """One process under a runner."""

    def __init__(self, runs: Path, steps: list[dict[str, Any]], limits: dict[str, Any]) -> None:
        self.runs = runs
        self.key = secrets.token_hex(10)
        self.folder = runs / self.key
        self.spec = {
            "version": 1,
            "key": self.key,
            "marker": {MARKER: self.key},
            "steps": steps,
            "limits": {"grace": 2.0, **limits},
        }

    def start(self, python: str = sys.executable) -> Identity:
        return spawn(self.runs, self.key, self.spec, python)

    def finish(self) -> dict[str, Any]:
        """Wait until the runner has ended; its exit record."""
        identity = read_identity(self.runs, self.key)
        assert identity is not None
        wait_end(identity)
        record = read_exit(self.runs, self.key)
        assert record is not None, f"no exit record; the log has {self.notes()}"
        assert record["log_size"] == (self.folder / "log").stat().st_size
        return record

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        return ask(self.runs, self.key, {"do": do, **fields})

    def records(self) -> list[Record]:
        found: list[Record] = []
        offset = 0
        while True:
            some, offset = read_records(self.folder / "log", offset, 1 << 20)
            if not some:
                return found
            found += some

    def output(self, stream: int = 1) -> list[bytes]:
        return [record.data for record in self.records() if record.stream == stream]

    def notes(self, note: str | None = None) -> list[dict[str, Any]]:
        found = [json.loads(record.data) for record in self.records() if record.stream == NOTE]
        return [one for one in found if note in (None, one["note"])]

    def wait_line(self, line: bytes, stream: int = 1) -> None:
        until(lambda: line in self.output(stream), f"the line {line!r} in the log")

    def wait_number(self, before: bytes) -> int:
        """The number in the first line that begins with these bytes."""
        found = until(
            lambda: [line for line in self.output() if line.startswith(before)], f"a line with {before!r}"
        )
        return int(found[0][len(before) :])

    def alive(self) -> list[int]:
        """Pids with this run's marker."""
        return [one.pid for one in marked_processes(MARKER, self.key)]
