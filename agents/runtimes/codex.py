"""The `codex` runtime: OpenAI's Codex, by its app server.

A client of ours stands between (codex_agent). Every session has its own CODEX_HOME, so there is one
conversation in it: the one that is carried over is found without its id, which Codex itself chooses. It runs
within bubblewrap only, its own sandbox off (two sandboxes within each other cost much and add nothing here).
"""

from __future__ import annotations

import json
import os
import platform
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.processes.confine import allowed_environment

from .base import Command, FileOp, Found, Launch, ProgramMissing, Redact, Trial
from .codex_stream import CodexParser
from .programs import (
    base_url_of,
    copied_into,
    find_named,
    instructions_of,
    is_plain,
    key_of,
    log_in_with,
    login_files,
    look,
    model_of,
    needs_bubblewrap,
    own_login,
    plain_transcript,
    refuse_keys,
)
from .spoken import Spoken, client_files, spoken_command

CLIENT = Path(__file__).with_name("codex_agent.py")
FILES = client_files(CLIENT.stem, "codex_records", "followed")
PROGRAM = "Codex"
DEFAULT_MODEL = "gpt-5.5"
PROVIDER = "https://api.openai.com"
KEY = "HUSKIES_PROVIDER_KEY"  # the variable that holds the key, named in the provider's settings
PROVIDER_RETRIES = 4
START_SECONDS = 100.0  # until it takes a prompt; the watchdog waits for 120
PATIENCE = 120.0
"""Seconds that it may wait for the provider: a story waits better, without holding an agent."""
OFF = ("multi_agent", "goals")
INSTALL = (
    "Install Codex (https://developers.openai.com/codex) so that `codex` is on the PATH, "
    "or name the program in HUSKIES_CODEX."
)
LOG_IN = log_in_with("codex login", "codex")
TARGETS = {"x86_64": ("x64", "x86_64"), "aarch64": ("arm64", "aarch64")}


class Codex(Spoken):
    name = "codex"
    label = "Codex (OpenAI's agent program)"
    keys: tuple[str, ...] = ()
    provider = PROVIDER
    tested = ">=0.169,<0.170"
    trial = Trial("/v1")

    def command(self, launch: Launch) -> Command:
        """The program's command line; raises `LaunchRefused` for what it cannot be given."""
        program = find_program()
        if program is None:
            raise ProgramMissing(f"Codex is not found on this host. {INSTALL}")
        needs_bubblewrap(launch, "Codex runs a shell, which could read the server's own files")
        refuse_keys(self.name, launch.agent_config, ("allowed_tools", "disallowed_tools"))
        model = model_of(launch, DEFAULT_MODEL)
        argv = [sys.executable, "-I", "-S", str(CLIENT), str(program), "app-server"]
        for name, value in _settings(launch).items():
            argv += ["-c", f"{name}={value}"]
        for feature in OFF:
            argv += ["--disable", feature]
        env = {"CODEX_HOME": str(launch.config), "TZ": "UTC", **launch.git_environment()}
        if launch.credential is not None and launch.credential.value:
            env[KEY] = launch.credential.value
        request = {
            "model": model,
            "resume": launch.resume,
            "patience": START_SECONDS,
            "provider_patience": float(launch.agent_config.get("provider_patience", PATIENCE)),
        }
        return spoken_command(
            argv,
            allowed_environment(launch.home, launch.tmp, env),
            request,
            launch,
            files=login_files(launch, PROGRAM, LOG_IN, [host_login()], launch.config),
            readable=[*FILES, _folder_of(program)],
        )

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        """The newest conversation of the earlier session, and nothing else of its folder."""
        found = list(_transcripts(previous))
        if not found:
            return []
        source = max(found, key=lambda path: path.name)  # rollout-<time>-<id>.jsonl
        return copied_into(source, launch.config / source.relative_to(previous).parent)

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> CodexParser:
        return CodexParser(state, redact)

    def program(self) -> Path | None:
        return find_program()

    def find(self) -> Found:
        program = find_program()
        command = None if program is None else [str(program)]
        return look(command, "HUSKIES_CODEX", INSTALL, host_login(), LOG_IN)


def find_program() -> Path | None:
    """HUSKIES_CODEX, else `codex` on the PATH; of an npm package the native program within it.

    The package's own start is a script for node: a second process, which a kill does not pass on.
    """
    program = find_named("HUSKIES_CODEX", "codex")
    if program is None:
        return None
    real = Path(os.path.realpath(program))
    if real.suffix != ".js":
        return program
    short, long = TARGETS.get(platform.machine(), ("", ""))
    package = real.parents[1]  # .../@openai/codex/bin/codex.js
    inside = Path(f"vendor/{long}-unknown-linux-musl/bin/codex")
    for place in (
        package.parent / f"codex-linux-{short}",
        package / f"node_modules/@openai/codex-linux-{short}",
    ):
        if os.access(place / inside, os.X_OK):
            return place / inside
    return None


def host_login() -> Path:
    """Where the host's own log-in lies (Linux)."""
    folder = os.environ.get("CODEX_HOME") or os.path.expanduser("~/.codex")  # noqa: PTH111
    return Path(folder) / "auth.json"


def _settings(launch: Launch) -> dict[str, str]:
    """Codex's settings as TOML values; JSON's texts are TOML's. With a host's log-in the provider is Codex's own."""
    retries = int(launch.agent_config.get("provider_retries", PROVIDER_RETRIES))
    settings = {
        "web_search": '"disabled"',
        "check_for_update_on_startup": "false",
        "analytics.enabled": "false",
        # What the agent's shell inherits: neither the key nor anything else of ours.
        "shell_environment_policy.exclude": json.dumps([KEY]),
        "shell_environment_policy.ignore_default_excludes": "false",
    }
    if instructions := instructions_of(launch):
        settings["developer_instructions"] = json.dumps(instructions)
    if own_login(launch):
        return settings
    provider: dict[str, Any] = {
        "name": "huskies",
        "base_url": base_url_of(launch) or f"{PROVIDER}/v1",
        "wire_api": "responses",
        "request_max_retries": retries,
        "stream_max_retries": retries,
    }
    if key_of(launch, PROGRAM, LOG_IN, PROVIDER):
        provider["env_key"] = KEY
    settings["model_provider"] = '"huskies"'
    settings |= {f"model_providers.huskies.{key}": json.dumps(value) for key, value in provider.items()}
    return settings


def _transcripts(config: Path) -> Iterator[Path]:
    """The plain files of conversations: an agent could have put a link to a secret in the place of one."""
    folders = [config / "sessions"] if is_plain(config, stat.S_ISDIR) else []
    for level in range(4):  # sessions/YEAR/MONTH/DAY
        folders = [folder for folder in folders if is_plain(folder, stat.S_ISDIR)]
        if level < 3:
            folders = [one for folder in folders for one in sorted(folder.iterdir())[:1000]]
    for folder in folders:
        for path in sorted(folder.glob("rollout-*.jsonl"))[:1000]:
            if plain_transcript(path):
                yield path


def _folder_of(program: Path) -> Path:
    """Its folder: the program starts helpers that lie beside it. Of a file that stands alone, the file."""
    real = Path(os.path.realpath(program))
    root = real.parents[1]
    return root if (root / "codex-resources").is_dir() else real
