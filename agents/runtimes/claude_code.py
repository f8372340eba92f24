"""The `claude-code` runtime: the real program, headless, one turn per session.

The prompt goes in on stdin, which is then closed: it is never an option and never part of a shell
line. Options that carry a value are written `--name=value`, so that no value can be read as another
option. Every session has its own config folder; only the conversation's transcript is carried over.

Without bubblewrap the program may edit files in its working directory and nothing else: no shell.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.processes.confine import allowed_environment
from pipeline.processes.probe import ask_program

from .base import Command, FileOp, Found, Launch, LaunchRefused, ProgramMissing, Redact
from .claude_stream import ClaudeParser

DEFAULT_MODEL = "sonnet"
FREE_TOOLS = ("Bash", "Read", "Edit", "Write", "Glob", "Grep")
EDIT_TOOLS = ("Read", "Edit", "Write", "Glob", "Grep")
# The program's own tries before it gives up, at 0.6, 1.2, 2.4 … seconds. Its default of 10 keeps a session
# busy for many minutes; the server waits better, without holding an agent.
PROVIDER_RETRIES = 4
MOST_TRANSCRIPT = 256 * 1024 * 1024  # bytes
VERSION_TIMEOUT = 20.0  # seconds; 0.1 s on a quiet machine
INSTALL = (
    "Install Claude Code (https://code.claude.com/docs/en/setup) so that `claude` is on the PATH, "
    "or name the program in HUSKIES_CLAUDE."
)
LOG_IN = "Log in with `claude` once on this host, or add a credential: ./huskies credential add NAME."

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/\[\]-]{0,99}")


class ClaudeCode:
    name = "claude-code"
    label = "Claude Code (Anthropic's agent program)"
    keys: tuple[str, ...] = ()
    provider = "https://api.anthropic.com"

    def command(self, launch: Launch) -> Command:
        """The program's command line; raises `LaunchRefused` for what it cannot be given."""
        program = find_program()
        if program is None:
            raise ProgramMissing(f"Claude Code is not found on this host. {INSTALL}")
        free = launch.level == "bubblewrap"
        argv = [
            str(program),
            "-p",
            "--output-format=stream-json",
            "--verbose",
            "--include-partial-messages",
            "--strict-mcp-config",
            # No settings of the project's: they could run hooks and send the key elsewhere.
            "--setting-sources=",
            f"--permission-mode={'bypassPermissions' if free else 'acceptEdits'}",
            *_tools(launch.agent_config, FREE_TOOLS if free else EDIT_TOOLS),
            f"--model={_model(launch)}",
            f"--{'resume' if launch.resume else 'session-id'}={_conversation(launch)}",
            *_limits(launch.agent_config),
        ]
        env = allowed_environment(launch.home, launch.tmp, self._environment(launch))
        return Command(
            argv, env, launch.prompt, files=_login_files(launch), readable=[program, _home_of(program)]
        )

    def _environment(self, launch: Launch) -> dict[str, str]:
        config = launch.agent_config
        env = {
            "CLAUDE_CONFIG_DIR": str(launch.config),
            "CLAUDE_CODE_TMPDIR": str(launch.tmp),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
            "CLAUDE_CODE_MAX_RETRIES": str(int(config.get("provider_retries", PROVIDER_RETRIES))),
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1",
            **launch.git_environment(),
        }
        credential = launch.credential
        if credential is not None and credential.kind == "api_key":
            env["ANTHROPIC_API_KEY"] = credential.value
        elif credential is not None and credential.kind == "oauth_token":
            env["CLAUDE_CODE_OAUTH_TOKEN"] = credential.value
        base_url = (credential.base_url if credential is not None else None) or config.get("base_url")
        if base_url:
            env["ANTHROPIC_BASE_URL"] = str(base_url)
        return env

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        return carry_conversation(previous, launch.config, launch.conversation)

    def message(self, text: str) -> str | None:
        return None  # stdin carries the prompt and is closed after it

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> ClaudeParser:
        return ClaudeParser(state, redact)

    def find(self) -> Found:
        """What this host has; starts the program once per file version to ask its version."""
        program = find_program()
        if program is None:
            return Found(None, None, None, INSTALL)
        try:
            seen = program.stat()
        except OSError as problem:
            return Found(None, None, None, f"{program} cannot be read: {problem.strerror}. {INSTALL}")
        version, problem_text = _version(program, seen.st_mtime_ns, seen.st_size)
        logged_in = host_credentials().is_file()
        if version is None:
            return Found(program, None, logged_in, problem_text)
        return Found(program, version, logged_in, "" if logged_in else LOG_IN)


def find_program() -> Path | None:
    """HUSKIES_CLAUDE, else `claude` on the PATH, else the one inside the wheel claude-agent-sdk."""
    named = os.environ.get("HUSKIES_CLAUDE")
    if named:
        return Path(named).absolute() if os.access(named, os.X_OK) else None
    on_path = shutil.which("claude")
    if on_path:
        return Path(on_path).absolute()
    wheel = importlib.util.find_spec("claude_agent_sdk")  # finds the package without importing it
    if wheel is None or wheel.origin is None:
        return None
    bundled = Path(wheel.origin).parent / "_bundled" / "claude"
    return bundled if os.access(bundled, os.X_OK) else None


@functools.lru_cache(maxsize=8)
def _version(program: Path, _mtime_ns: int, _size: int) -> tuple[str | None, str]:
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  (Path.home() raises where there is none)
    answer = ask_program(
        [str(program), "--version"], env=allowed_environment(home, home, {}), timeout=VERSION_TIMEOUT
    )
    words = answer.out.split()
    if answer.code == 0 and words:
        return words[0][:50], ""
    said = (
        answer.problem
        or f"{program} --version ended with exit code {answer.code}: {answer.err.strip()[:300]}"
    )
    return None, f"{said} Install it again, or name another program in HUSKIES_CLAUDE."


def host_credentials() -> Path:
    """Where the host's own log-in lies (Linux)."""
    folder = os.environ.get("CLAUDE_CONFIG_DIR") or os.path.expanduser("~/.claude")  # noqa: PTH111
    return Path(folder) / ".credentials.json"


def carry_conversation(previous_config: Path, new_config: Path, conversation: str) -> list[FileOp]:
    """File operations that copy one conversation's transcript, and nothing else, to a new config folder.

    The program finds it under any folder of `projects/`, so its name is kept although the working
    directory differs (measured with 2.1.330). Empty if there is none, or if it is not a plain file of
    ours: an agent could have put a link to a secret in its place, and the copy is made outside of the
    confinement.
    """
    conversation = str(uuid.UUID(conversation))
    projects = previous_config / "projects"
    if not _is_plain(previous_config, stat.S_ISDIR) or not _is_plain(projects, stat.S_ISDIR):
        return []
    best: tuple[int, Path] | None = None
    for folder in sorted(projects.iterdir())[:1000]:
        source = folder / f"{conversation}.jsonl"
        if _is_plain(folder, stat.S_ISDIR) and _is_plain(source, stat.S_ISREG):
            size = source.lstat().st_size
            if size <= MOST_TRANSCRIPT and (best is None or size > best[0]):
                best = (size, source)
    if best is None:
        return []
    target = new_config / "projects" / best[1].parent.name
    return [["mkdir", str(target)], ["copy", str(best[1]), str(target / best[1].name)]]


def _is_plain(path: Path, kind: Any) -> bool:
    try:
        seen = path.lstat()
    except OSError:
        return False
    linked = stat.S_ISREG(seen.st_mode) and seen.st_nlink != 1
    return bool(kind(seen.st_mode)) and seen.st_uid == os.getuid() and not linked


def _login_files(launch: Launch) -> list[FileOp]:
    """The host's own log-in, copied for this session alone.

    The provider may renew a token while the session runs; the renewed one stays in the session, so a
    token made for servers (`claude setup-token`, kind oauth_token) is the better credential.
    """
    if launch.credential is None or launch.credential.kind != "host_login":
        return []
    source = host_credentials()
    if not source.is_file():
        raise LaunchRefused(f"Claude Code is not logged in on this host ({source} is missing). {LOG_IN}")
    return [["mkdir", str(launch.config)], ["copy", str(source), str(launch.config / source.name)]]


def _home_of(program: Path) -> Path:
    """The file behind the program's name, which an installer links to."""
    return Path(os.path.realpath(program))


def _conversation(launch: Launch) -> str:
    try:
        return str(uuid.UUID(launch.conversation))
    except ValueError:
        raise LaunchRefused(
            f"{launch.conversation!r} is not a conversation of Claude Code: it must be a UUID."
        ) from None


def _model(launch: Launch) -> str:
    model = launch.model or launch.agent_config.get("model") or DEFAULT_MODEL
    if not isinstance(model, str) or not _MODEL.fullmatch(model):
        raise LaunchRefused(f"{model!r} is not a name of a model. Correct the agent's `model`.")
    return model


def _tools(config: Mapping[str, Any], offered: tuple[str, ...]) -> list[str]:
    """The options that say which tools there are: only whole ones can be allowed, rules can only forbid."""
    allowed = [str(one) for one in config.get("allowed_tools") or ()]
    refused = [str(one) for one in config.get("disallowed_tools") or ()]
    rules = [one for one in refused if "(" in one]
    for one in allowed:
        if "(" in one:
            raise LaunchRefused(
                f"allowed_tools cannot hold {one!r}: Claude Code is offered whole tools here. "
                "Name the tool, and forbid what it must not do in disallowed_tools."
            )
    kept = [tool for tool in offered if (not allowed or _named(tool, allowed)) and not _named(tool, refused)]
    if not kept:
        raise LaunchRefused(
            f"The agent's allowed_tools and disallowed_tools leave none of {', '.join(offered)}. Allow one."
        )
    return [f"--tools={','.join(kept)}", *([f"--disallowedTools={','.join(rules)}"] if rules else [])]


def _named(tool: str, names: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(tool, name) for name in names)


def _limits(config: Mapping[str, Any]) -> list[str]:
    options = {
        "max-turns": config.get("max_turns"),
        "max-budget-usd": config.get("max_budget_usd"),
        "append-system-prompt": config.get("append_system_prompt") or config.get("system_prompt"),
    }
    # On a resume the program replays the first session's instructions, unless told not to. (Of a new
    # working directory it tells its model by itself.)
    snapshot = ["--system-prompt-snapshot=off"] if options["append-system-prompt"] else []
    return snapshot + [f"--{name}={value}" for name, value in options.items() if value]
