"""A real `up` in a folder of its own, its members, and how each of them is killed."""

from __future__ import annotations

import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg

from huskies_site.stack import members
from pipeline.processes import identity as identities
from pipeline.processes.identity import Identity, marked_processes
from pipeline.processes.runfolder import MARKER
from tests.processes.runs import wait_end

ROOT = Path(__file__).resolve().parents[2]
BOOT_SECONDS = 60.0
SERVER_PARTS = ("web", "a worker", "workers", "supervisor", "up", "all of the server")
AGENT_PARTS = ("a runner", "an agent", "everything")


class Stack:
    def __init__(self, home: Path, database: str = "") -> None:
        """`database`: its URL; "" = SQLite in the data folder."""
        self.home, self.database = home, database
        self.log = home.parent / "up.log"
        self._up: subprocess.Popen[bytes] | None = None

    # -- up ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Until all of its parts are recorded as running."""
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        environment |= {
            "HUSKIES_HOME": str(self.home),
            "HUSKIES_BIND": "127.0.0.1:0",
            "HUSKIES_UNCONFINED": "1",
            "DATABASE_URL": self.database,
        }
        with self.log.open("ab") as out:
            self._up = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "up"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True,
            )  # fmt: skip
        self.until(lambda: len(self.parts()) == 3, "all parts of up", seconds=BOOT_SECONDS)

    def stop(self) -> None:
        """Ctrl-C, and once more when it takes long."""
        if self._up is None:
            return
        self._up.send_signal(signal.SIGINT)
        try:
            self._up.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._up.kill()
            self._up.wait()
        self._up = None

    def parts(self) -> dict[str, Identity]:
        """The parts that are alive now, by name."""
        _, parts = members.recorded(self.home)
        return {name: one for name, one in parts.items() if identities.is_alive(one)}

    def is_up(self) -> bool:
        return self._up is not None and self._up.poll() is None

    def queue_children(self) -> list[Identity]:
        command, parts = members.recorded(self.home)
        leader = parts.get("workers")
        return [one for one in members.members(leader, command) if one != leader] if leader else []

    # -- agents --------------------------------------------------------------------------------------------------

    def runners(self) -> list[Identity]:
        """Of the agents' processes: those whose working copies are there."""
        keys = {path.name for path in (self.home / "copies").iterdir()}
        found = []
        for folder in sorted((self.home / "runs").iterdir()):
            with suppress(OSError, ValueError):
                one = Identity.from_json((folder / "identity").read_text())
                if folder.name in keys and identities.is_alive(one):
                    found.append(one)
        return found

    def agents(self) -> list[Identity]:
        """The children of those runners."""
        runners = {one.pid for one in self.runners()}
        keys = {path.name for path in (self.home / "copies").iterdir()}
        marked = [one for one in marked_processes(MARKER) if one.value in keys and one.pid not in runners]
        return [one for each in marked if (one := Identity.of(each.pid)) is not None]

    # -- death ---------------------------------------------------------------------------------------------------

    def kill(self, what: str, chance: random.Random) -> None:
        """SIGKILL to one of the members that this name stands for, or to all of them; returns when they are dead."""
        parts = self.parts()
        up = [one for one in [Identity.of(self._up.pid) if self._up is not None else None] if one is not None]
        whole = [*up, *parts.values(), *self.queue_children()]
        victims: dict[str, Callable[[], list[Identity]]] = {
            "web": lambda: [parts["web"]] if "web" in parts else [],
            "a worker": lambda: one_of(self.queue_children(), chance),
            "workers": lambda: [parts["workers"]] if "workers" in parts else [],
            "supervisor": lambda: [parts["supervisor"]] if "supervisor" in parts else [],
            "up": lambda: up,
            "all of the server": lambda: whole,
            "a runner": lambda: one_of(self.runners(), chance),
            "an agent": lambda: one_of(self.agents(), chance),
            "everything": lambda: [*whole, *one_of(self.runners(), chance), *one_of(self.agents(), chance)],
        }
        dying = victims[what]()
        for one in dying:
            identities.send_signal(one, signal.SIGKILL)
        if what in ("up", "all of the server", "everything") and self._up is not None:
            self._up.wait()
            self._up = None
        for one in dying:
            wait_end(one)

    def mend(self) -> None:
        """`up` again if it is dead; else until it has started what was killed."""
        if not self.is_up():
            self.start()
        self.until(lambda: len(self.parts()) == 3, "the part that was killed", seconds=BOOT_SECONDS)

    # -- what is seen from outside -------------------------------------------------------------------------------

    def logged(self) -> int:
        """Bytes in the logs of all runs."""
        return sum(path.stat().st_size for path in (self.home / "runs").glob("*/log"))

    def stages(self) -> list[str]:
        with closing(self.connect()) as database:
            return [row[0] for row in database.execute("SELECT stage FROM pipeline_story ORDER BY number")]

    def connect(self) -> sqlite3.Connection | psycopg.Connection[Any]:
        if self.database:
            return psycopg.connect(self.database)
        return sqlite3.connect(f"file:{self.home}/huskies.sqlite3?mode=ro", uri=True, timeout=20)

    def until(self, true: Callable[[], object], what: str, seconds: float) -> None:
        """Look every few milliseconds; fails with the end of the log of `up`."""
        end = time.monotonic() + seconds
        while not true():
            tail = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
            assert time.monotonic() < end, f"{what}: not within {seconds:g} s; up said:\n{tail}"
            # What is looked for is files and rows of other processes: nothing there to wait on.
            select.select([], [], [], 0.01)


def one_of(all_of_them: Iterable[Identity], chance: random.Random) -> list[Identity]:
    found = sorted(all_of_them, key=lambda one: one.pid)
    return [chance.choice(found)] if found else []
