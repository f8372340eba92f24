"""How an agent program is found on this host, and what is safe to copy of its folders."""

from __future__ import annotations

import functools
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.processes.confine import allowed_environment
from pipeline.processes.probe import ask_program

from .base import LaunchRefused

VERSION_TIMEOUT = 20.0  # seconds; 0.1 s on a quiet machine, 2 s for a program on node
_VERSION = re.compile(r"\d+\.\d[\w.+-]*")


def find_named(variable: str, name: str) -> Path | None:
    """The program named by the environment's `variable`, else `name` on the PATH."""
    named = os.environ.get(variable)
    if named:
        return Path(named).absolute() if os.access(named, os.X_OK) else None
    on_path = shutil.which(name)
    return Path(on_path).absolute() if on_path else None


def version_of(program: Path, variable: str, path: str = "") -> tuple[str | None, str]:
    """(version, "") or (None, what to do); starts the program once per file version. `path`: put before its PATH."""
    try:
        seen = program.stat()
    except OSError as problem:
        return (
            None,
            f"{program} cannot be read: {problem.strerror}. Install it again, or name another in {variable}.",
        )
    version, said = _version(program, seen.st_mtime_ns, seen.st_size, path)
    return version, said and f"{said} Install it again, or name another program in {variable}."


@functools.lru_cache(maxsize=16)
def _version(program: Path, _mtime_ns: int, _size: int, path: str) -> tuple[str | None, str]:
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  (Path.home() raises where there is none)
    env = allowed_environment(home, home, {})
    if path:
        env["PATH"] = os.pathsep.join([path, env["PATH"]])
    answer = ask_program([str(program), "--version"], env=env, timeout=VERSION_TIMEOUT)
    found = _VERSION.search(answer.out)
    if answer.code == 0 and found:
        return found[0][:50], ""
    return None, answer.problem or (
        f"{program} --version ended with exit code {answer.code}: {answer.err.strip()[:300]}"
    )


def is_plain(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether `path` itself is of `kind` (stat.S_ISREG, stat.S_ISDIR), ours, and a file that has one name only."""
    try:
        seen = path.lstat()
    except OSError:
        return False
    linked = stat.S_ISREG(seen.st_mode) and seen.st_nlink != 1
    return kind(seen.st_mode) and seen.st_uid == os.getuid() and not linked


def refuse_keys(runtime: str, config: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Raise `LaunchRefused` for keys of an agent's entry that the runtime could not honour: they would silently do nothing."""
    for key in keys:
        if config.get(key):
            raise LaunchRefused(
                f"The runtime {runtime} cannot keep to `{key}`: remove it from the agent, or give it the runtime claude-code."
            )
