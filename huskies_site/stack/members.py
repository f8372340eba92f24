"""Who belongs to a process set, known beyond its death: identities in a file, and the kernel's sessions.

Each part is the leader of a kernel session of its own, and django-q2's children stay in it. The number of a session is not given
to another process while a member of it lives, so with the leader's start time and the boot id the members can be told for sure.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

from pipeline.processes import identity as identities
from pipeline.processes import proc
from pipeline.processes.identity import Identity
from pipeline.processes.runfolder import write_durably

FILE = "stack.json"


def record(home: Path, parts: dict[str, Identity]) -> None:
    """Remember the parts, so that the next `up` can end what this one left."""
    said = {
        "version": 1,
        "command": command_of(os.getpid()),
        "parts": {name: json.loads(one.to_json()) for name, one in parts.items()},
    }
    write_durably(str(home), FILE, json.dumps(said).encode())


def forget(home: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        (home / FILE).unlink()


def recorded(home: Path) -> tuple[str, dict[str, Identity]]:
    """The command line and the parts of the set that ran last; a damaged file is as none."""
    try:
        said: dict[str, Any] = json.loads((home / FILE).read_bytes())
        return str(said["command"]), {
            name: Identity.from_json(json.dumps(one)) for name, one in said["parts"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", {}


def command_of(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        )
    except OSError:
        return ""


def session_of(pid: int) -> int:
    """The kernel session of a process, 0 if it is gone."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def members(leader: Identity, command: str) -> list[Identity]:
    """The living processes of the leader's session that are forks of a set with this command line."""
    if leader.boot_id != identities.boot_id():
        return []
    seen = proc.process(leader.pid)
    if seen is not None and seen.start_time != leader.start_time:
        return []  # the number was given to another process: the session is gone
    found = []
    for pid in proc.pids():
        if session_of(pid) == leader.pid and command_of(pid) == command:
            one = Identity.of(pid)
            if one is not None and one.start_time >= leader.start_time and identities.is_alive(one):
                found.append(one)
    return found


def end_leftovers(home: Path, seconds: float = 5.0) -> dict[str, int]:
    """Kill what an earlier set left (its `up` is dead: the caller holds the lock); part -> how many. Agents are not among them."""
    command, parts = recorded(home)
    ended: dict[str, int] = {}
    until = time.monotonic() + seconds
    for name, leader in parts.items():
        while found := members(leader, command):
            ended[name] = max(ended.get(name, 0), len(found))
            for one in found:
                identities.send_signal(one, signal.SIGKILL)
            for one in found:
                wait_for_end(one, until)
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{name} of an earlier start ({', '.join(str(one.pid) for one in found)}) cannot be killed"
                )
    return ended


def wait_for_end(one: Identity, until: float) -> bool:
    """Whether the process ended before `until` (monotonic)."""
    fd = identities.open_pidfd(one)
    if fd is None:
        return True
    try:
        return bool(select.select([fd], [], [], max(0.0, until - time.monotonic()))[0])
    finally:
        os.close(fd)
