"""A real server for a case: `up` as a child with a data folder of its own, a project with scripted coders, and a person who is logged in.

The case's own process has the same settings and database (the embedded default), so it may look at rows, and call services without HTTP.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.processes import identity, logfile, proc
from tests.benchmarks.measure import wait_for

ROOT = Path(__file__).resolve().parents[2]
CSRF = "b" * 32


class Server:
    """`up` on a data folder. `kill` ends all its processes at once, as a power cut would; the agents' runners are not among them."""

    def __init__(self, home: Path) -> None:
        self.home, self.address = home, ""
        self.child: subprocess.Popen[bytes] | None = None
        self.log = home.with_name(home.name + ".log")

    def start(self) -> float:
        """Start it; seconds until it answers HTTP and its supervisor has made its first turn."""
        env = {**os.environ, "HUSKIES_HOME": str(self.home), "HUSKIES_BIND": "127.0.0.1:0"}
        before = time.monotonic()
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                [sys.executable, "manage.py", "up"], cwd=ROOT, env=env, stdout=log, stderr=log
            )
        wait_for(self._says_its_address, f"the address of `up` ({self.log})", pause=0.002)
        wait_for(self._answers, "an answer of the web part", pause=0.002)
        wait_for(self._supervised, "the supervisor's first turn", pause=0.002)
        return time.monotonic() - before

    def _says_its_address(self) -> bool:
        assert self.child is not None
        text = self.log.read_text(errors="replace")
        if self.child.poll() is not None:
            raise RuntimeError(f"`up` ended with {self.child.returncode}: {text[-2000:]}")
        found = re.search(r"huskies is at (http://\S+)", text)
        self.address = found[1] if found else ""
        return bool(found)

    def _answers(self) -> bool:
        try:
            connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=10)
            with contextlib.closing(connection):
                connection.request("GET", "/login/")
                return connection.getresponse().status == 200
        except OSError:
            return False

    def _supervised(self) -> bool:
        row = self.row("SELECT supervisor_pid FROM pipeline_host")
        return bool(row and row[0] and row[0] in self.members())

    def row(self, query: str) -> tuple[object, ...] | None:
        """One row of its database, read without Django."""
        connection = sqlite3.connect(f"file:{self.home / 'huskies.sqlite3'}?mode=ro", uri=True, timeout=20)
        with contextlib.closing(connection):
            row: tuple[object, ...] | None = connection.execute(query).fetchone()
            return row

    def members(self) -> list[int]:
        """`up` and all that descends from it: web, the queue's processes, the supervisor."""
        assert self.child is not None
        parents = {}
        for folder in Path("/proc").glob("[0-9]*"):
            one = proc.process(int(folder.name))
            if one is not None:
                parents[one.pid] = one.parent
        found = [self.child.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def kill(self) -> None:
        """SIGKILL to every process of the set, `up` first."""
        assert self.child is not None
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.child.wait()

    def close(self) -> None:
        """End the agents that are left, then the server."""
        if self.child is not None and self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        for folder in (self.home / "runs").iterdir() if (self.home / "runs").exists() else ():
            for one in identity.marked_processes("HUSKIES_SESSION", folder.name):
                identity.send_signal(
                    identity.Identity(one.pid, one.start_time, identity.boot_id()), signal.SIGKILL
                )


class Person:
    """A logged-in person with a cookie, as a browser is."""

    def __init__(self, server: Server) -> None:
        from django.conf import settings
        from django.contrib.auth.models import User
        from django.test import Client

        user = User.objects.filter(is_superuser=True).first() or User.objects.create_superuser("bench")
        client = Client()
        client.force_login(user)
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        self.address = server.address
        self.headers = {
            "Cookie": f"{settings.SESSION_COOKIE_NAME}={session}; {settings.CSRF_COOKIE_NAME}={CSRF}",
            "X-CSRFToken": CSRF,
        }

    def post(self, path: str) -> None:
        """One press of a button, on a fresh connection. Raises RuntimeError unless it is answered as a success."""
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=30)
        with contextlib.closing(connection):
            connection.request(
                "POST",
                path,
                body="",
                headers={**self.headers, "Content-Type": "application/x-www-form-urlencoded"},
            )
            answer = connection.getresponse()
            answer.read()
        if answer.status != 302:
            raise RuntimeError(f"POST {path} was answered with {answer.status}.")


def first_output(log: Path) -> logfile.Record | None:
    """The first record of a child's stdout after the main step began."""
    if not log.exists():
        return None
    records, _ = logfile.read_records(log, 0, 1 << 20)
    begun = False
    for record in records:
        if record.stream == logfile.NOTE:
            note = json.loads(record.data)
            begun = begun or (note.get("note") == "step-start" and bool(note.get("main")))
        elif begun and record.stream == logfile.STDOUT:
            return record
    return None


def step_starts(log: Path) -> list[tuple[str, float]]:
    """Each step's name and when it began, in seconds of the monotonic clock."""
    records, _ = logfile.read_records(log, 0, 1 << 20)
    notes = [
        (json.loads(record.data), record.monotonic_ns / 1e9)
        for record in records
        if record.stream == logfile.NOTE
    ]
    return [
        (note.get("name", note.get("step", "?")), at)
        for note, at in notes
        if note.get("note") == "step-start"
    ]
