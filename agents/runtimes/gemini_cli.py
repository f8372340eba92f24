"""The `gemini-cli` runtime: Google's Gemini CLI, headless, one turn per session.

The prompt goes in on stdin, which is then closed. A conversation belongs to a folder: each session registers its
own copy under one name, so that it can be carried over.

It does not run headless without trusting the repository, whose `.gemini` may name tools and hooks. So it runs
within bubblewrap only, where these can do no more than the agent itself; servers for tools are off, and where
the key goes stands in the environment, which a repository's `.env` does not change.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.processes.confine import allowed_environment

from .base import Command, FileOp, Found, Launch, ProgramMissing, Redact, Trial
from .gemini_stream import GeminiParser
from .programs import (
    OneTurn,
    base_url_of,
    conversation_of,
    copied_into,
    find_command,
    instructions_of,
    is_plain,
    key_of,
    log_in_with,
    login_files,
    look,
    model_of,
    named_proxies,
    needs_bubblewrap,
    own_login,
    plain_transcript,
    readable_of,
    tools_of,
)

FOLLOWER = Path(__file__).with_name("followed.py")
PROGRAM = "Gemini CLI"
DEFAULT_MODEL = "gemini-3.8-flash"
PROVIDER = "https://generativelanguage.googleapis.com"
LOGIN_PROVIDER = "https://cloudcode-pa.googleapis.com"  # of the host's own log-in
TOOLS = (
    "list_directory",
    "read_file",
    "grep_search",
    "glob",
    "replace",
    "write_file",
    "run_shell_command",
)
PROJECT = "story"  # the name that every copy is registered under; followed.py knows it too
CHATS = Path(".gemini/tmp", PROJECT, "chats")
# At about 5, 10, 20, 30 … seconds; its default of 10 tries keeps a session busy for four minutes.
PROVIDER_RETRIES = 3
MOST_TRIES = 10
LOGIN_FILES = ("oauth_creds.json", "google_accounts.json")
INSTALL = (
    "Install Gemini CLI (https://geminicli.com) and node 20 or newer, so that `gemini` and `node` are on the PATH, "
    "or name the program in HUSKIES_GEMINI."
)
LOG_IN = log_in_with("gemini", "gemini-cli")


class GeminiCli(OneTurn):
    name = "gemini-cli"
    label = "Gemini CLI (Google's agent program)"
    keys: tuple[str, ...] = ()
    provider = PROVIDER
    tested = ">=0.61,<0.62"
    trial = Trial()

    def command(self, launch: Launch) -> Command:
        """The program's command line; raises `LaunchRefused` for what it cannot be given."""
        program = find_program()
        if program is None:
            raise ProgramMissing(f"Gemini CLI is not found on this host. {INSTALL}")
        needs_bubblewrap(launch, "Gemini CLI runs what the repository's own settings name")
        model = model_of(launch, DEFAULT_MODEL)
        argv = [sys.executable, "-I", "-S", str(FOLLOWER), "gemini", model, "0", *program]
        argv += ["--output-format=stream-json", "--skip-trust", "--approval-mode=yolo", f"--model={model}"]
        argv += ["--allowed-mcp-server-names=none-of-them", "--extensions=none"]
        argv += [f"--{'resume' if launch.resume else 'session-id'}={conversation_of(launch, PROGRAM)}"]
        env = {
            **named_proxies(),
            **launch.git_environment(),
            **_committer(launch),
            **_login(launch),
            "GEMINI_CLI_HOME": str(launch.config),
            "GEMINI_CLI_NO_RELAUNCH": "true",
            "NODE_TLS_REJECT_UNAUTHORIZED": "1",
        }
        folder = launch.config / ".gemini"
        copy = os.path.realpath(launch.copy)
        files: list[FileOp] = [
            ["mkdir", str(launch.config / CHATS)],
            ["mkdir", str(folder / "history" / PROJECT)],
            ["write", str(folder / "settings.json"), json.dumps(_settings(launch)), 0o600],
            ["write", str(folder / "projects.json"), json.dumps({"projects": {copy: PROJECT}}), 0o600],
            ["write", str(folder / "tmp" / PROJECT / ".project_root"), copy, 0o600],
            ["write", str(folder / "history" / PROJECT / ".project_root"), copy, 0o600],
            *login_files(launch, PROGRAM, LOG_IN, [host_login() / name for name in LOGIN_FILES], folder),
        ]
        if instructions := instructions_of(launch):
            files.append(["write", str(folder / "GEMINI.md"), instructions, 0o600])
        readable = [FOLLOWER, *readable_of(program)]
        allowed = allowed_environment(launch.home, launch.tmp, env)
        return Command(argv, allowed, launch.prompt, files=files, readable=readable)

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        """The record of the conversation, and nothing else of the earlier session's folder."""
        folder = previous
        for name in ("", *CHATS.parts):
            folder = folder / name
            if not is_plain(folder, stat.S_ISDIR):
                return []
        ending = f"-{conversation_of(launch, PROGRAM)[:8]}.jsonl"
        names = [path for path in sorted(folder.iterdir())[:1000] if path.name.endswith(ending)]
        found = [path for path in names if plain_transcript(path)]
        return copied_into(found[-1], launch.config / CHATS) if found else []

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> GeminiParser:
        return GeminiParser(state, redact)

    def program(self) -> Path | None:
        command = find_program()
        return None if command is None else Path(command[-1])

    def find(self) -> Found:
        return look(find_program(), "HUSKIES_GEMINI", INSTALL, host_login() / LOGIN_FILES[0], LOG_IN)


def find_program() -> list[str] | None:
    return find_command("HUSKIES_GEMINI", "gemini")


def host_login() -> Path:
    """The folder of the host's own log-in."""
    return Path(os.environ.get("GEMINI_CLI_HOME") or os.path.expanduser("~")) / ".gemini"  # noqa: PTH111


def _settings(launch: Launch) -> dict[str, Any]:
    config = launch.agent_config
    retries = int(config.get("provider_retries", PROVIDER_RETRIES))
    return {
        "security": {
            "auth": {"selectedType": "oauth-personal" if own_login(launch) else "gemini-api-key"},
            # Its shell gets no key.
            "environmentVariableRedaction": {"enabled": True, "blocked": ["GEMINI_API_KEY"]},
        },
        "general": {
            "enableAutoUpdate": False,
            "enableAutoUpdateNotification": False,
            "maxAttempts": max(1, min(retries + 1, MOST_TRIES)),
        },
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "tools": {"core": tools_of(launch.agent_config, TOOLS)},
        "hooksConfig": {"enabled": False},
        "advanced": {"ignoreLocalEnv": True},
        "model": {"maxSessionTurns": int(config.get("max_turns") or -1)},
    }


def _committer(launch: Launch) -> dict[str, str]:
    """Who commits, as git's settings: of GIT_AUTHOR_NAME it thinks, for the word AUTH in it, that it is a secret."""
    who = launch.git_identity
    given = {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": who.name}
    return given | {"GIT_CONFIG_KEY_1": "user.email", "GIT_CONFIG_VALUE_1": who.email}


def _login(launch: Launch) -> dict[str, str]:
    if own_login(launch):
        return {"CODE_ASSIST_ENDPOINT": LOGIN_PROVIDER}
    key = key_of(launch, PROGRAM, LOG_IN, PROVIDER)
    # It does not start without a key, also where none is wanted.
    return {"GEMINI_API_KEY": key or "none", "GOOGLE_GEMINI_BASE_URL": base_url_of(launch) or PROVIDER}
