"""Confinement of a child: an environment by allow-list, and a bubblewrap prefix for its command.

A ladder of four levels. `none`: the environment alone is confined. `limits`: besides, what the runner
bounds (processes, open files, the size of one, no new rights). With both the program itself must be kept
to edits. `bubblewrap`: the whole file system is read-only, the places that hold secrets are covered by empty
ones, and only the named folders can be written; the child lives in its own pid, ipc and uts namespaces,
without capabilities, and nothing of it survives its main program. `bubblewrap+network`: besides, it has no
network but what its sidecar passes on.

Mounts are ordered by depth, so that the deeper one wins: a copy inside the hidden data folder is
visible, a hidden folder inside a readable one is not.

Standard library only: runners and chores use it without Django.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

LevelName = Literal["bubblewrap", "none"]
LADDER = ("none", "limits", "bubblewrap", "bubblewrap+network")  # from the weakest to the strongest
FORWARDER = Path(__file__).with_name("sidecar_forward.py")
PORT_INSIDE = 13128  # where the way out is reached within a network namespace of its own
NICE = 10
"""What agents and gates run with, so that a host full of them still serves its board and starts others."""

LIMITS = {"nofile": 65536, "nproc": 8192, "fsize": 64 * 2**30}
"""Bounds of every level but `none`. Processes count for the user on this host, not for one session: a stop for fork bombs, no budget."""

TRY_TIMEOUT = 10.0  # seconds; the trial takes about 10 ms on a quiet machine

NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
LIFE = ("--die-with-parent", "--new-session", "--cap-drop", "ALL")

# Covered by an empty folder each. /run holds the sockets of docker, D-Bus and agents of keys.
SCRATCH = ("/tmp", "/var/tmp", "/run")  # noqa: S108  (mount points, not files that we open)
# The child may write to these; what it writes is gone when it ends.
OWN_SCRATCH = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108
# What DNS and NixOS keep under /run, needed by nearly every program.
BACK_UNDER_RUN = ("/run/systemd/resolve", "/run/resolvconf", "/run/current-system")
# Readable by their owner: a child of a server that runs as root would still own them.
ROOT_SECRETS = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers")

# Besides these, a child's environment holds only what its caller names.
CARRIED = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class Level(NamedTuple):
    """The confinement that this host offers, and why it is not more."""

    name: LevelName
    reason: str


class _Mount(NamedTuple):
    target: Path
    rank: int  # on the same path: hidden first, then readable, then writable, then protected
    words: tuple[str, ...]


# ------------------------------------------------------------------------------- environment


def allowed_environment(home: Path, tmp: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The complete environment of a confined child: nothing else of the server's is passed on.

    `home` and `tmp` are the child's private folders; `extra` wins over everything. A proxy's
    address is passed on unless it holds a password.
    """
    env = {
        "PATH": os.pathsep.join(str(entry) for entry in path_entries()) or os.defpath,
        "HOME": str(home),
        "TMPDIR": str(tmp),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
    }
    for name in (*CARRIED, *CERTIFICATES):
        if os.environ.get(name):
            env[name] = os.environ[name]
    for name in PROXIES:
        value = os.environ.get(name, "")
        if value and "@" not in value:
            env[name] = value
    return env | dict(extra)


def path_entries() -> list[Path]:
    """The absolute, existing folders of PATH, without the server's own virtual environment.

    Left in, `python` in a project would be the server's Python with the server's packages.
    """
    own = Path(sys.prefix, "bin") if sys.prefix != sys.base_prefix else None
    found: list[Path] = []
    for word in os.environ.get("PATH", os.defpath).split(os.pathsep):
        entry = Path(word)
        if word and entry.is_absolute() and entry != own and entry not in found and entry.is_dir():
            found.append(entry)
    return found


def through_way_out(environment: Mapping[str, str], *, alone: bool, proxy: bool) -> dict[str, str]:
    """The environment of a child that has a sidecar. `alone`: in a network namespace of its own, where nothing but PORT_INSIDE
    answers; with `proxy` everything goes by it. Otherwise only 127.0.0.1 is reached without this host's proxies."""
    env = dict(environment)
    here = ",".join(["127.0.0.1", "localhost", "::1"])
    if alone:
        way = f"http://127.0.0.1:{PORT_INSIDE}" if proxy else ""
        env |= {name: here if name.lower() == "no_proxy" else way for name in PROXIES if proxy or name in env}
    elif any(env.get(name) for name in PROXIES):
        kept = env.get("NO_PROXY") or env.get("no_proxy")
        env |= dict.fromkeys(("NO_PROXY", "no_proxy"), f"{kept},{here}" if kept else here)
    return env


# ------------------------------------------------------------------------------- level


def is_confined(level: str) -> bool:
    """Whether a child at this level cannot leave its folders: then it may run what it likes."""
    return level in ("bubblewrap", "bubblewrap+network")


def limits_of(level: str) -> dict[str, int | bool]:
    """The runner's limits that belong to a level."""
    return {"nice": NICE} if level == "none" else {**LIMITS, "nice": NICE, "no_new_privs": True}


@functools.cache
def level_available() -> Level:
    """The best level of this host, found by really starting a confined program once."""
    if shutil.which("bwrap") is None:
        return Level("none", "bubblewrap is not installed; on Debian or Ubuntu: apt-get install bubblewrap.")
    argv = confined(
        ["/bin/sh", "-c", "test -r /proc/self/status"],
        level="bubblewrap",
        writable=[],
        readable=[],
        hidden=[],
        network=False,
        cwd=Path("/"),
    )
    try:
        done = subprocess.run(argv, capture_output=True, timeout=TRY_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Level("none", f"bubblewrap is installed but did not start: {problem}.")
    if done.returncode == 0:
        return Level("bubblewrap", "")
    said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    return Level(
        "none",
        f"bubblewrap is installed but cannot confine here ({said[0]}). A container needs the right to make "
        "user namespaces; Ubuntu 24.04 and newer need an AppArmor profile for bwrap.",
    )


# ------------------------------------------------------------------------------- command


def confined(
    argv: Sequence[str],
    *,
    level: str,
    writable: Sequence[Path],
    readable: Sequence[Path],
    hidden: Sequence[Path],
    network: bool,
    cwd: Path,
    way_out: Path | None = None,
    guarded: Sequence[Path] = (),
) -> list[str]:
    """`argv` with the prefix that confines it; unchanged at the levels `none` and `limits`.

    `writable` must exist when the child starts (an earlier step may make them), else it does not
    start. `readable` may be missing. `hidden` are the folders and files that must not be read, such
    as the server's data folder; what is named readable or writable below them stays visible. If
    `cwd` is writable, the settings and hooks of its git repository are read-only. `guarded` are paths within the
    writable ones that are read-only as far as they exist (the runner's file operation `reserve` sees to that).
    `way_out`: without a network, the folder with the socket of a sidecar, which is then reached at PORT_INSIDE.

    With an empty `argv` the result is a prefix for any command.
    """
    if level not in LADDER:
        raise ValueError(f"There is no level of confinement {level!r}; there are {', '.join(LADDER)}.")
    if not is_confined(level):
        return list(argv)
    identity = 1000 if os.getuid() == 0 else os.getuid()
    group = 1000 if os.getuid() == 0 else os.getgid()
    program = shutil.which("bwrap") or "bwrap"  # absolute: the child's PATH has no say in it
    words = [program, *NAMESPACES, *LIFE, "--uid", str(identity), "--gid", str(group)]
    if not network:
        words.append("--unshare-net")
        if way_out is not None:
            readable = [*readable, way_out, FORWARDER.parent, FORWARDER.parents[1] / "__init__.py"]
            argv = [sys.executable, "-I", "-S", str(FORWARDER), str(way_out), str(PORT_INSIDE), *argv]
    words += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    covered = _covered(hidden)
    mounts = [*_hides(covered), *toolchain(covered), *_readables(readable), *_writables(writable)]
    if cwd in writable:
        mounts += _git_guards(cwd)
    for kept in (_real(path.parent) / path.name for path in guarded):
        mounts.append(_Mount(kept, 3, ("--ro-bind-try", str(kept), str(kept))))
    for mount in sorted(mounts, key=lambda one: (len(one.target.parts), one.rank)):
        words += mount.words
    # Last, when all that is visible below them has its place. Left writable, a file that an agent writes to
    # a path of an earlier session would seem to be there and be lost.
    shown = {mount.target for mount in mounts if mount.rank}
    for place in covered:
        if place.is_dir() and place not in shown and place not in OWN_SCRATCH:
            words += ["--remount-ro", str(place)]
    return [*words, "--chdir", str(cwd), "--", *argv]


def _covered(hidden: Sequence[Path]) -> list[Path]:
    """The places that the child must not see, resolved, each once, without the root."""
    places = [*(Path(word) for word in SCRATCH), Path.home()]
    with contextlib.suppress(KeyError):  # a user id without a name, as containers have
        places.append(Path(pwd.getpwuid(os.getuid()).pw_dir))
    if os.getuid() == 0:
        places += [Path("/root"), Path("/home"), *(Path(word) for word in ROOT_SECRETS)]
        places += sorted(Path("/etc/ssh").glob("ssh_host_*_key"))
    found = dict.fromkeys(_real(place) for place in (*places, *hidden))
    return [place for place in found if place != Path("/")]


def _hides(covered: Sequence[Path]) -> Iterator[_Mount]:
    for place in covered:
        if place.is_dir():
            yield _Mount(place, 0, ("--tmpfs", str(place)))
        elif place.exists():
            yield _Mount(place, 0, ("--ro-bind", "/dev/null", str(place)))


def toolchain(covered: Sequence[Path]) -> tuple[_Mount, ...]:
    """What programs need from below the hidden places: PATH, its libraries, this interpreter. Looked for each ten seconds: there are
    dozens of links to follow, and a start asks three times."""
    return _toolchain(tuple(covered), os.environ.get("PATH", ""), int(time.monotonic() // 10))


@functools.lru_cache(maxsize=8)
def _toolchain(covered: tuple[Path, ...], _path: str, _when: int) -> tuple[_Mount, ...]:
    found: list[_Mount] = []
    wanted = [Path(word) for word in BACK_UNDER_RUN]
    for entry in path_entries():
        wanted.append(entry)
        if entry.name == "bin":
            wanted += [entry.parent / "lib", entry.parent / "libexec"]
    wanted += [Path(sys.base_prefix), Path(sys.prefix)]
    for path in dict.fromkeys(wanted):
        above = set(_real(path).parents)
        # Strictly below: a folder that is itself hidden stays so, whatever PATH says.
        if path.exists() and any(place in above for place in covered):
            found += _readables([path])
    return tuple(found)


def _readables(paths: Sequence[Path]) -> Iterator[_Mount]:
    for path in paths:
        real = _real(path)
        yield _Mount(real, 1, ("--ro-bind-try", str(real), str(real)))
        place = _real(path.parent) / path.name
        if place != real:  # a link: its name must be there too
            yield _Mount(place, 1, ("--ro-bind-try", str(real), str(place)))


def _writables(paths: Sequence[Path]) -> Iterator[_Mount]:
    for path in paths:
        real = str(_real(path))
        yield _Mount(Path(real), 2, ("--bind", real, real))


def _git_guards(copy: Path) -> Iterator[_Mount]:
    """Read-only settings, hooks and alternates inside a writable copy, the hooks even if missing.

    `.git` becomes a mount of its own, because a folder that holds mounts can be renamed, and a mount
    cannot: without it an agent could put its own `.git` in the place of the guarded one.
    """
    git = _real(copy) / ".git"
    yield _Mount(git, 2, ("--bind-try", str(git), str(git)))
    for name in ("config", "info"):
        place = str(git / name)
        yield _Mount(git / name, 3, ("--ro-bind-try", place, place))
    hooks = str(git / "hooks")
    if git.is_dir() or not copy.exists():  # no repository there: a folder of hooks would be litter
        yield _Mount(git / "hooks", 3, ("--tmpfs", hooks, "--remount-ro", hooks))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
