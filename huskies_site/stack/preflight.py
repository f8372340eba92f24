"""What must hold before anything starts; each obstacle is one sentence with its remedy."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from huskies_site.stack import forks
from pipeline.git import MINIMUM_VERSION
from pipeline.git import version as git_version
from pipeline.processes.identity import Identity

LOCK = "up.lock"
BACKLOG = 512
NETWORK_SHARES = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "afs",
    "ceph",
    "lustre",
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.ceph",
)


class CannotStart(Exception):
    """The server cannot be started."""


def require_git() -> None:
    if shutil.which("git") is None:
        raise CannotStart(
            "git was not found, and every story is worked and landed with it. Install it (apt-get install git) and try again."
        )
    found = git_version()
    if found < MINIMUM_VERSION:
        here, needed = (".".join(map(str, version)) for version in (found, MINIMUM_VERSION))
        raise CannotStart(
            f"git {here} is too old: {needed} or newer is needed. Install a newer one and try again."
        )


def take_lock(home: Path, address: str) -> int:
    """The lock of the data folder, held for this process's life; the file says who holds it. Raises CannotStart."""
    fd = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        holder = lock_holder(home)
        who = f" (process {holder[0].pid}, {holder[1]})" if holder else ""
        raise CannotStart(
            f"huskies already runs on the data folder {home}{who}. Stop that one first (Ctrl-C there, or ./huskies down), "
            "or name another folder in HUSKIES_HOME."
        ) from None
    say_holder(fd, address)
    forks.close_in_children.append(fd)
    return fd


def say_holder(fd: int, address: str) -> None:
    """Who holds the lock, and where it is reached, as `lock_holder` reads it."""
    me = Identity.of(os.getpid())
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps({**(json.loads(me.to_json()) if me else {}), "address": address}).encode(), 0)


def require_local_disk(home: Path, mounts: str) -> None:
    """SQLite's locks are not kept between machines: its folder must not be a network share. `mounts`: /proc/mounts. Raises CannotStart."""
    kind = filesystem_of(home, mounts)
    if kind in NETWORK_SHARES:
        raise CannotStart(
            f"The data folder {home} is on a network share ({kind}), where SQLite loses data once two machines write. "
            "Name a folder of a local disk in HUSKIES_HOME, or a PostgreSQL database in DATABASE_URL."
        )


def filesystem_of(path: Path, mounts: str) -> str:
    """The type of the file system that holds a path, "" if it is not known."""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1])  # a space is \040
        inside = path == Path(point) or Path(point) in path.parents
        if inside and len(point) >= len(best):  # the later of two mounts on one point is on top
            best, kind = point, fields[2]
    return kind


def lock_holder(home: Path) -> tuple[Identity, str] | None:
    """Who runs `up` on this folder, and its address; None when nobody does."""
    with contextlib.suppress(OSError, ValueError), (home / LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().decode()
            return Identity.from_json(text), str(json.loads(text).get("address", ""))
    return None


def listen(host: str, port: int) -> socket.socket:
    """The socket that the web part serves. `up` keeps it, so that a restart of that part loses no visitor. Raises CannotStart."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise CannotStart(_no_port(host, port, error)) from error
    listener.setblocking(False)
    forks.close_in_children.append(listener.fileno())
    return listener


def _no_port(host: str, port: int, error: OSError) -> str:
    remedy = f"Choose another one: HUSKIES_BIND={host if ':' not in host else f'[{host}]'}:{port + 1 if port < 65535 else 8000} ./huskies up"
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is used by another program. Stop that one, or choose another port: {remedy.partition(': ')[2]}"
    if error.errno == errno.EACCES:
        return f"Port {port} of {host} needs more rights than this user has. {remedy}"
    return f"{host}:{port} is no address of this machine that one can listen on ({error.strerror}). Set HUSKIES_BIND, such as 127.0.0.1:8000."


def systemd_warning() -> str | None:
    """Under systemd, a service must not kill its whole group when it stops: the agents are in it."""
    if "INVOCATION_ID" not in os.environ:
        return None
    found = re.search(r"/([^/\n]+\.service)", Path("/proc/self/cgroup").read_text())
    if not found or found[1].startswith("user@"):
        return None
    scope = ["--user"] if "/user@" in Path("/proc/self/cgroup").read_text() else []
    try:
        said = subprocess.run(
            ["systemctl", *scope, "show", "--property=KillMode,OOMPolicy", "--", found[1]],
            capture_output=True,
            text=True,
            timeout=2,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return unit_warning(found[1], dict(line.partition("=")[::2] for line in said.splitlines()))


def unit_warning(unit: str, values: dict[str, str]) -> str | None:
    """What is wrong with the unit's KillMode and OOMPolicy, as a sentence; None if nothing is."""
    wanted = {"KillMode": "process", "OOMPolicy": "continue"}
    wrong = [
        f"{name}={wanted[name]} (now {values[name]})"
        for name in wanted
        if name in values and values[name] != wanted[name]
    ]
    if not wrong:
        return None
    return f"Warning: {unit} would take running agents down with it. Set {' and '.join(wrong)} in its [Service] section."
