"""A real `up` in a data folder of its own, on a free port, read line by line."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 40.0


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    own = {"HUSKIES_HOME": str(home), "HUSKIES_BIND": "127.0.0.1:0", "DATABASE_URL": "", "HUSKIES_URL": ""}
    return {**kept, **own, **more}


def command(home: Path, *words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """One command line to its end."""
    argv = [sys.executable, str(ROOT / "manage.py"), *words]
    return subprocess.run(
        argv,
        env=environment(home, **more),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


class Up:
    """`said` holds the lines so far."""

    def __init__(self, home: Path, *words: str, **more: str) -> None:
        self.home, self.said = home, ""
        self.child = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "up", *words],
            env=environment(home, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """The `count`-th match of the pattern in what it said; fails after a while."""
        assert self.child.stdout is not None
        until = time.monotonic() + SECONDS
        while len(found := list(re.finditer(pattern, self.said))) < count:
            left = until - time.monotonic()
            ready = left > 0 and select.select([self.child.stdout], [], [], left)[0]
            more = os.read(self.child.stdout.fileno(), 65536) if ready else b""
            assert more, f"up never said {pattern!r} {count} times; it said:\n{self.said}"
            self.said += more.decode()
        return found[count - 1]

    def ready(self) -> Up:
        self.wait_for("supervisor started")
        return self

    @property
    def address(self) -> str:
        return self.wait_for(r"huskies is at (\S+)")[1]

    @property
    def parts(self) -> dict[str, int]:
        said: dict[str, Any] = json.loads((self.home / "stack.json").read_text())
        return {name: one["pid"] for name, one in said["parts"].items()}

    def stop(self, number: int = signal.SIGINT) -> int:
        self.child.send_signal(number)
        return self.child.wait(timeout=SECONDS)

    def end(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        assert self.child.stdout is not None
        self.child.stdout.close()


def browser() -> OpenerDirector:
    return build_opener(HTTPCookieProcessor(CookieJar()))


def processes_of(home: Path) -> list[int]:
    """Living processes whose environment names the data folder."""
    mark, found = f"HUSKIES_HOME={home}".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def wait_until_none(home: Path) -> list[int]:
    """The processes that are left once none is, or after a while."""
    until = time.monotonic() + 10
    while (left := processes_of(home)) and time.monotonic() < until:
        fd = -1
        try:
            fd = os.pidfd_open(left[0])
            select.select([fd], [], [], until - time.monotonic())
        except ProcessLookupError:
            pass
        finally:
            if fd >= 0:
                os.close(fd)
    return processes_of(home)
