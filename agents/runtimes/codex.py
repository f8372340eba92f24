"""The `codex` runtime: OpenAI's Codex, headless, one turn per session.

The prompt goes in on stdin, which is then closed. Every session has its own CODEX_HOME, so there is one
conversation in it: the one that is carried over is found without its id, which Codex itself chooses. It runs
within bubblewrap only, its own sandbox off (two sandboxes within each other cost much and add nothing here).
"""

from __future__ import annotations

import json
import os
import platform
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.processes.confine import allowed_environment

from .base import Command, FileOp, Found, Launch, LaunchRefused, ProgramMissing, Redact
from .codex_stream import CodexParser
from .programs import find_named, is_plain, refuse_keys, version_of

FOLLOWER = Path(__file__).with_name("followed.py")
DEFAULT_MODEL = "gpt-5.5"
PROVIDER = "https://api.openai.com"
KEY = "HUSKIES_PROVIDER_KEY"  # the variable that holds the key, named in the provider's settings
PROVIDER_RETRIES = 4
PATIENCE = 120.0
"""Seconds that it may wait for the provider: a story waits better, without holding an agent."""
MOST_TRANSCRIPT = 256 * 1024 * 1024  # bytes
OFF = ("multi_agent", "goals")
INSTALL = (
    "Install Codex (https://developers.openai.com/codex) so that `codex` is on the PATH, "
    "or name the program in HUSKIES_CODEX."
)
LOG_IN = "Log in with `codex login` once on this host, or add a credential: ./huskies credential add NAME."
TARGETS = {"x86_64": ("x64", "x86_64"), "aarch64": ("arm64", "aarch64")}

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,99}")


class Codex:
    name = "codex"
    label = "Codex (OpenAI's agent program)"
    keys: tuple[str, ...] = ()
    provider = PROVIDER

    def command(self, launch: Launch) -> Command:
        """The program's command line; raises `LaunchRefused` for what it cannot be given."""
        program = find_program()
        if program is None:
            raise ProgramMissing(f"Codex is not found on this host. {INSTALL}")
        if launch.level != "bubblewrap":
            raise LaunchRefused(
                "Codex runs a shell, which could read the server's own files: it needs bubblewrap on this host. "
                "Install it, or give the agent the runtime claude-code, which can be kept to edits."
            )
        refuse_keys(self.name, launch.agent_config, ("allowed_tools", "disallowed_tools"))
        model = _model(launch)
        argv = [sys.executable, "-I", "-S", str(FOLLOWER), "codex", model, _patience(launch)]
        argv += [str(program), "exec", "--json"]
        argv += ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        argv += ["-C", str(launch.copy), "-m", model]
        for name, value in _settings(launch).items():
            argv += ["-c", f"{name}={value}"]
        for feature in OFF:
            argv += ["--disable", feature]
        argv += [*(["resume", "--last", "--all"] if launch.resume else []), "-"]
        env = {"CODEX_HOME": str(launch.config), "TZ": "UTC", **launch.git_environment()}
        if launch.credential is not None and launch.credential.value:
            env[KEY] = launch.credential.value
        return Command(
            argv,
            allowed_environment(launch.home, launch.tmp, env),
            launch.prompt,
            files=_login_files(launch),
            readable=[FOLLOWER, _folder_of(program)],
        )

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        """The newest conversation of the earlier session, and nothing else of its folder."""
        found = list(_transcripts(previous))
        if not found:
            return []
        source = max(found, key=lambda path: path.name)  # rollout-<time>-<id>.jsonl
        target = launch.config / source.relative_to(previous)
        return [["mkdir", str(target.parent)], ["copy", str(source), str(target)]]

    def message(self, text: str) -> str | None:
        return None  # stdin carries the prompt and is closed after it

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> CodexParser:
        return CodexParser(state, redact)

    def find(self) -> Found:
        program = find_program()
        if program is None:
            return Found(None, None, None, INSTALL)
        version, problem = version_of(program, "HUSKIES_CODEX")
        logged_in = host_login().is_file()
        return Found(program, version, logged_in, problem or ("" if logged_in else LOG_IN))


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
    config, credential = launch.agent_config, launch.credential
    retries = int(config.get("provider_retries", PROVIDER_RETRIES))
    settings = {
        "web_search": '"disabled"',
        "check_for_update_on_startup": "false",
        "analytics.enabled": "false",
        # What the agent's shell inherits: neither the key nor anything else of ours.
        "shell_environment_policy.exclude": json.dumps([KEY]),
        "shell_environment_policy.ignore_default_excludes": "false",
    }
    if instructions := config.get("append_system_prompt") or config.get("system_prompt"):
        settings["developer_instructions"] = json.dumps(str(instructions))
    if credential is not None and credential.kind == "host_login":
        return settings
    base_url = (credential.base_url if credential is not None else None) or config.get("base_url")
    provider: dict[str, Any] = {
        "name": "huskies",
        "base_url": str(base_url or f"{PROVIDER}/v1"),
        "wire_api": "responses",
        "request_max_retries": retries,
        "stream_max_retries": retries,
    }
    if credential is not None and credential.value:
        provider["env_key"] = KEY
    elif not base_url:
        raise LaunchRefused(
            f"Codex has no key for {PROVIDER}. {LOG_IN} Then name it in the agent's `credential`."
        )
    settings["model_provider"] = '"huskies"'
    settings |= {f"model_providers.huskies.{key}": json.dumps(value) for key, value in provider.items()}
    return settings


def _login_files(launch: Launch) -> list[FileOp]:
    """The host's own log-in, copied for this session alone."""
    if launch.credential is None or launch.credential.kind == "api_key":
        return []
    if launch.credential.kind == "oauth_token":
        raise LaunchRefused(
            "Codex takes an API key or the host's own log-in, no OAuth token. Change the credential's kind."
        )
    source = host_login()
    if not source.is_file():
        raise LaunchRefused(f"Codex is not logged in on this host ({source} is missing). {LOG_IN}")
    return [["mkdir", str(launch.config)], ["copy", str(source), str(launch.config / source.name)]]


def _patience(launch: Launch) -> str:
    return str(float(launch.agent_config.get("provider_patience", PATIENCE)))


def _model(launch: Launch) -> str:
    model = launch.model or launch.agent_config.get("model") or DEFAULT_MODEL
    if not isinstance(model, str) or not _MODEL.fullmatch(model):
        raise LaunchRefused(f"{model!r} is not a name of a model. Correct the agent's `model`.")
    return model


def _transcripts(config: Path) -> Iterator[Path]:
    """The plain files of conversations: an agent could have put a link to a secret in the place of one."""
    folders = [config / "sessions"] if is_plain(config, stat.S_ISDIR) else []
    for level in range(4):  # sessions/YEAR/MONTH/DAY
        folders = [folder for folder in folders if is_plain(folder, stat.S_ISDIR)]
        if level < 3:
            folders = [one for folder in folders for one in sorted(folder.iterdir())[:1000]]
    for folder in folders:
        for path in sorted(folder.glob("rollout-*.jsonl"))[:1000]:
            if is_plain(path, stat.S_ISREG) and path.lstat().st_size <= MOST_TRANSCRIPT:
                yield path


def _folder_of(program: Path) -> Path:
    """Its folder: the program starts helpers that lie beside it. Of a file that stands alone, the file."""
    real = Path(os.path.realpath(program))
    root = real.parents[1]
    return root if (root / "codex-resources").is_dir() else real
