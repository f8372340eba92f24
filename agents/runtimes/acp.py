"""The `acp` runtime: any program that speaks the Agent Client Protocol, by the protocol's Python SDK.

The agent's entry names the program by `command` and `args`, as for the runtime `command`, with the same environment and within
bubblewrap only; an admin has approved it. `mode` is the mode that the program shall work in (gemini: yolo), `auth_method` the
way that it shall log in, both by the program's own names. What it asks permission for is allowed, or with `permissions: ask`
answered by rules and people.

A client of ours stands between (acp_agent). The program's home is the session's own; what it keeps there of a conversation is
carried to the next session, if it can load one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .acp_stream import AcpParser
from .base import Command, FileOp, Found, Launch, Redact
from .command import argv_of, environment_of
from .programs import conversation_of, instructions_of, is_plain, needs_bubblewrap, refuse_keys
from .spoken import Spoken, client_files, spoken_command

CLIENT = Path(__file__).with_name("acp_agent.py")
FILES = client_files(CLIENT.stem, "acp_home", "acp_wire")
SDK = "agent-client-protocol"
# The protocol knows no such limits and no list of tools, and tells of requests only when a turn is over.
NOT_KEPT = ("allowed_tools", "disallowed_tools", "max_turns", "max_tool_turns")
PATIENCE = 100.0  # seconds from its start to a session that takes a prompt; the watchdog waits for 120
CONVERSATION = "conversation.json"
MOST_MEMORY = 64 * 1024  # bytes
MOST_FILES = 1000  # and folders, of a home that is carried
MOST_DEPTH = 20
MOST_BYTES = 256 * 1024 * 1024
CACHES = (".cache", ".npm", ".bun", "node_modules", "Cache")
ADVICE = (
    "Install the packages of requirements.lock again: .venv/bin/python -m pip install -r requirements.lock."
)


class Acp(Spoken):
    name = "acp"
    label = "a program of your own that speaks the Agent Client Protocol"
    keys: tuple[str, ...] = ("command", "args", "mode", "auth_method")
    provider = ""
    tested = ">=0.12.1,<0.13"
    trial = None

    def command(self, launch: Launch) -> Command:
        """Our client with the program that the entry names; raises `LaunchRefused` for what it cannot be given."""
        config = launch.agent_config
        needs_bubblewrap(launch, "A program of your own can do whatever the server's own user can")
        refuse_keys(self.name, config, NOT_KEPT)
        instructions = "" if launch.resume else instructions_of(launch)
        request = {
            "argv": argv_of(config),
            "home": str(_home(launch.config)),
            "memory": str(_memory(launch)),
            "prompt": f"{instructions}\n\n{launch.prompt}" if instructions else launch.prompt,
            "resume": launch.resume,
            "mode": config.get("mode"),
            "model": launch.model,
            "auth_method": config.get("auth_method"),
            "patience": PATIENCE,
        }
        return spoken_command(
            [sys.executable, "-I", str(CLIENT)],
            environment_of(launch),
            request,
            launch,
            files=[["mkdir", str(_home(launch.config))]],
            readable=FILES,
        )

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        """The program's home and our note of the conversation, if the program can go on with one and its home is not too large."""
        memory = previous / "acp" / CONVERSATION
        if not (_is_folder(previous) and _is_folder(memory.parent) and is_plain(memory, stat.S_ISREG)):
            return []
        if memory.lstat().st_size > MOST_MEMORY or not _goes_on(memory):
            return []
        found: list[FileOp] = [["mkdir", str(_home(launch.config))]]
        size = 0
        for path in _plain_below(_home(previous)):
            target, is_folder = str(_home(launch.config) / path.relative_to(_home(previous))), path.is_dir()
            size += 0 if is_folder else path.lstat().st_size
            if len(found) > MOST_FILES or size > MOST_BYTES:
                return []
            found.append(["mkdir", target] if is_folder else ["copy", str(path), target])
        return [*found, ["copy", str(memory), str(_memory(launch))]]

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> AcpParser:
        return AcpParser(state, redact)

    def program(self) -> Path | None:
        return CLIENT

    def find(self) -> Found:
        """Our client is always there; the programs are the agents' own. The version is the protocol SDK's."""
        if importlib.util.find_spec("acp") is None:
            return Found(None, None, None, f"The package {SDK} is not installed. {ADVICE}")
        return Found(CLIENT, importlib.metadata.version(SDK), None, "")


def _home(config: Path) -> Path:
    return config / "acp" / "home"


def _memory(launch: Launch) -> Path:
    conversation_of(launch, "the Agent Client Protocol")
    return launch.config / "acp" / CONVERSATION


def _is_folder(path: Path) -> bool:
    return is_plain(path, stat.S_ISDIR)


def _goes_on(memory: Path) -> bool:
    try:
        value = json.loads(memory.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("resumes") is True and bool(value.get("session"))


def _plain_below(root: Path) -> Iterator[Path]:
    """Folders before what is in them, and regular files with one name; no links, no caches, no names that are not UTF-8."""
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        if len(here.relative_to(root).parts) >= MOST_DEPTH:
            folders.clear()
        folders[:] = [
            name for name in folders if name not in CACHES and _is_folder(here / name) and _is_text(name)
        ]
        yield from (here / name for name in folders)
        yield from (here / name for name in files if _is_text(name) and is_plain(here / name, stat.S_ISREG))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
