"""What the machine itself can do: the bare forms of what the server does, with nothing of the server in them."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psycopg
from django.db import connection

from agents.runtimes.scripted import PROGRAM
from tests.racing import database_url

CLAIM = (
    "UPDATE job SET state = 'running', owner = 'one', fence = fence + 1 "
    "WHERE id = (SELECT id FROM job WHERE state = 'queued' ORDER BY id LIMIT 1) RETURNING id, fence"
)
GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "Bench", "GIT_AUTHOR_EMAIL": "bench@example.invalid",
    "GIT_COMMITTER_NAME": "Bench", "GIT_COMMITTER_EMAIL": "bench@example.invalid",
}  # fmt: skip


class BareQueue:
    """A table of jobs in a SQLite file with the server's own settings: WAL and FULL."""

    def __init__(self, file: Path, jobs: int = 20_000) -> None:
        self.connection = sqlite3.connect(file, timeout=20, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        if not jobs:
            return
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS job (id INTEGER PRIMARY KEY, state TEXT, owner TEXT, fence INTEGER DEFAULT 0, body TEXT)"
        )
        self.connection.execute("CREATE INDEX IF NOT EXISTS job_state ON job (state, id)")
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany(
                "INSERT INTO job (state, body) VALUES ('queued', ?)", [("x" * 200,)] * jobs
            )

    def claim(self) -> int | None:
        """The job's number, None when there is none."""
        self.connection.execute("BEGIN IMMEDIATE")
        rows = self.connection.execute(CLAIM).fetchall()
        self.connection.execute("COMMIT")
        return int(rows[0][0]) if rows else None

    def close(self) -> None:
        self.connection.close()


class BarePostgresQueue:
    """The same on PostgreSQL: one statement, which skips what another is just taking."""

    def __init__(self, url: str, jobs: int) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        if not jobs:
            return
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS job (id BIGSERIAL PRIMARY KEY, state TEXT, owner TEXT, fence INTEGER DEFAULT 0, body TEXT)"
        )
        self.connection.execute("CREATE INDEX IF NOT EXISTS job_state ON job (state, id)")
        self.connection.execute(
            "INSERT INTO job (state, body) SELECT 'queued', repeat('x', 200) FROM generate_series(1, %s)",
            [jobs],
        )

    def claim(self) -> int | None:
        row = self.connection.execute(CLAIM.replace("LIMIT 1", "LIMIT 1 FOR UPDATE SKIP LOCKED")).fetchone()
        return int(row[0]) if row else None

    def close(self) -> None:
        self.connection.close()


def bare_queue(jobs: int = 0) -> BareQueue | BarePostgresQueue:
    """On the database of Django's settings; with that many more jobs in it."""
    if connection.vendor == "sqlite":
        return BareQueue(Path(str(connection.settings_dict["NAME"])), jobs)
    return BarePostgresQueue(database_url(), jobs)


def git(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=cwd,
        env={**os.environ, **GIT_ENVIRONMENT},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


SCRIPTED = "runtime: scripted"


def repository(folder: Path, coders: int, files: int = 50, runtime: str = SCRIPTED) -> Path:
    """A checked-out repository of `files` small files whose project file names that many coders."""
    folder.mkdir(parents=True)
    git("init", "-q", "-b", "main", cwd=folder)
    for number in range(files - 1):
        place = folder / f"part{number % 7}" / f"file{number}.txt"
        place.parent.mkdir(exist_ok=True)
        place.write_text(f"line of file {number}\n" * 40)
    lines = "".join(
        f"  - {{name: coder-{number}, role: coder, {runtime}}}\n" for number in range(1, coders + 1)
    )
    (folder / ".huskies").mkdir()
    (folder / ".huskies" / "project.yaml").write_text(f"agents:\n{lines}")
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "first", cwd=folder)
    return folder


class BareStart:
    """A start with nothing around it: claim one row, `git worktree add`, the agent's program, its first byte."""

    def __init__(self, folder: Path, prefix: list[str] | None = None) -> None:
        folder.mkdir()
        self.queue = BareQueue(folder / "jobs.sqlite3")
        self.repository = repository(folder / "repository", coders=1)
        self.folder, self.prefix, self.numbers = folder, prefix or [], itertools.count(1)

    def __call__(self) -> float:
        """Seconds from the claim to the first byte."""
        name = f"story-{next(self.numbers)}"
        place = self.folder / "worktrees" / name
        request = {"turns": [[{"hang": True}]], "memory": str(self.folder / f"{name}.json")}
        before = time.monotonic()
        self.queue.claim()
        git("worktree", "add", "-q", "--no-track", "-b", name, str(place), "main", cwd=self.repository)
        seconds = first_byte(
            [*self.prefix, sys.executable, "-I", "-S", str(PROGRAM)], place, json.dumps(request), before
        )
        git("worktree", "remove", "--force", str(place), cwd=self.repository)
        git("branch", "-qD", name, cwd=self.repository)
        return seconds

    def copies(self, number: int) -> float:
        """Seconds for that many worktrees, one after the other."""
        names = [f"serial-{next(self.numbers)}" for _ in range(number)]
        before = time.monotonic()
        for name in names:
            git(
                "worktree",
                "add",
                "-q",
                "--no-track",
                "-b",
                name,
                str(self.folder / name),
                "main",
                cwd=self.repository,
            )
        seconds = time.monotonic() - before
        for name in names:
            git("worktree", "remove", "--force", str(self.folder / name), cwd=self.repository)
            git("branch", "-qD", name, cwd=self.repository)
        return seconds


def first_byte(argv: list[str], cwd: Path, request: str, before: float) -> float:
    """Start a program, hand it its request; seconds since `before` when its first byte is here. Then end it."""
    child = subprocess.Popen(
        argv, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdin and child.stdout
    with child:
        child.stdin.write(request.encode())
        child.stdin.close()
        byte = os.read(child.stdout.fileno(), 1)
        seconds = time.monotonic() - before
        child.kill()
    if not byte:
        raise RuntimeError(f"The program of the floor said nothing: {argv}.")
    return seconds
