"""The `claude-code` runtime: the real program, headless.

The prompt goes in on stdin as a line of JSON: it is never an option and never part of a shell line. What
people say while it runs follows there (claude_voice). Options that carry a value are written `--name=value`, so that no value can be read as another
option. Every session has its own config folder; only the conversation's transcript is carried over.

Without bubblewrap the program may edit files in its working directory and nothing else: no shell.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipeline.processes.confine import allowed_environment

from .base import Command, Decision, FileOp, Found, Launch, LaunchRefused, ProgramMissing, Redact, Trial
from .claude_stream import ClaudeParser
from .claude_voice import TURN_BEGINS, TURN_ENDS, answer_line, interrupt_line, user_line
from .programs import (
    base_url_of,
    conversation_of,
    copied_into,
    instructions_of,
    is_plain,
    log_in_with,
    login_files,
    look,
    model_of,
    plain_transcript,
    tools_of,
)

PROGRAM = "Claude Code"
DEFAULT_MODEL = "sonnet"
FREE_TOOLS = ("Bash", "Read", "Edit", "Write", "Glob", "Grep")
EDIT_TOOLS = ("Read", "Edit", "Write", "Glob", "Grep")
# The program's own tries before it gives up, at 0.6, 1.2, 2.4 … seconds. Its default of 10 keeps a session
# busy for many minutes; the server waits better, without holding an agent.
PROVIDER_RETRIES = 4
INSTALL = (
    "Install Claude Code (https://code.claude.com/docs/en/setup) so that `claude` is on the PATH, "
    "or name the program in HUSKIES_CLAUDE."
)
LOG_IN = log_in_with("claude", "claude-code")


class ClaudeCode:
    name = "claude-code"
    label = "Claude Code (Anthropic's agent program)"
    keys: tuple[str, ...] = ()
    provider = "https://api.anthropic.com"
    tested = ">=2.1.197,<2.2"
    trial = Trial()
    interrupts = True

    def command(self, launch: Launch) -> Command:
        """The program's command line; raises `LaunchRefused` for what it cannot be given."""
        program = find_program()
        if program is None:
            raise ProgramMissing(f"Claude Code is not found on this host. {INSTALL}")
        free = launch.level == "bubblewrap"
        argv = [
            str(program),
            "-p",
            "--input-format=stream-json",
            "--output-format=stream-json",
            "--verbose",
            "--include-partial-messages",
            "--strict-mcp-config",
            # No settings of the project's: they could run hooks and send the key elsewhere.
            "--setting-sources=",
            *_permissions(launch.agent_config, free),
            *_tools(launch, FREE_TOOLS if free else EDIT_TOOLS),
            f"--model={model_of(launch, DEFAULT_MODEL)}",
            f"--{'resume' if launch.resume else 'session-id'}={conversation_of(launch, PROGRAM)}",
            *_limits(launch),
        ]
        env = allowed_environment(launch.home, launch.tmp, self._environment(launch))
        # The provider may renew a token while the session runs; the renewed one stays in the session, so a token
        # made for servers (`claude setup-token`, kind oauth_token) is the better credential.
        files = login_files(launch, PROGRAM, LOG_IN, [host_credentials()], launch.config)
        # The second is the file behind the program's name, which an installer links to.
        readable = [program, Path(os.path.realpath(program))]
        return Command(
            argv,
            env,
            user_line(launch.prompt),
            keep_stdin=True,
            interrupt=interrupt_line(),
            turn_begins=TURN_BEGINS,
            turn_ends=TURN_ENDS,
            files=files,
            readable=readable,
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
        if base_url := base_url_of(launch):
            env["ANTHROPIC_BASE_URL"] = base_url
        return env

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        return carry_conversation(previous, launch.config, launch.conversation)

    def message(self, text: str) -> str | None:
        return user_line(text)

    def answer(self, request: Mapping[str, Any], decision: Decision) -> str | None:
        return answer_line(request, decision)

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> ClaudeParser:
        return ClaudeParser(state, redact)

    def program(self) -> Path | None:
        return find_program()

    def find(self) -> Found:
        program = find_program()
        command = None if program is None else [str(program)]
        return look(command, "HUSKIES_CLAUDE", INSTALL, host_credentials(), LOG_IN)


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
    if not is_plain(previous_config, stat.S_ISDIR) or not is_plain(projects, stat.S_ISDIR):
        return []
    found: list[Path] = []
    for folder in sorted(projects.iterdir())[:1000]:
        source = folder / f"{conversation}.jsonl"
        if is_plain(folder, stat.S_ISDIR) and plain_transcript(source):
            found.append(source)
    if not found:
        return []
    best = max(found, key=lambda path: path.lstat().st_size)
    return copied_into(best, new_config / "projects" / best.parent.name)


def _permissions(config: Mapping[str, Any], free: bool) -> list[str]:
    """Without a mode, whatever changes something is asked for, of us."""
    if config.get("permissions") == "ask":
        return ["--permission-prompt-tool=stdio"]
    return [f"--permission-mode={'bypassPermissions' if free else 'acceptEdits'}"]


def _tools(launch: Launch, offered: tuple[str, ...]) -> list[str]:
    """The options that say which tools there are: only whole ones can be allowed, rules can only forbid."""
    allowed = [str(one) for one in launch.agent_config.get("allowed_tools") or ()]
    refused = [str(one) for one in launch.agent_config.get("disallowed_tools") or ()]
    rules = [one for one in refused if "(" in one]
    for one in allowed:
        if "(" in one:
            raise LaunchRefused(
                f"allowed_tools cannot hold {one!r}: Claude Code is offered whole tools here. "
                "Name the tool, and forbid what it must not do in disallowed_tools."
            )
    kept = tools_of(launch.agent_config, offered)
    return [f"--tools={','.join(kept)}", *([f"--disallowedTools={','.join(rules)}"] if rules else [])]


def _limits(launch: Launch) -> list[str]:
    entry = launch.agent_config
    budgets = [entry[key] for key in ("max_budget_usd", "budget_left_usd") if entry.get(key) is not None]
    options = {
        "max-turns": entry.get("max_turns"),
        "max-budget-usd": min(budgets, key=Decimal, default=None),
        "append-system-prompt": instructions_of(launch),
    }
    # On a resume the program replays the first session's instructions, unless told not to. (Of a new
    # working directory it tells its model by itself.)
    snapshot = ["--system-prompt-snapshot=off"] if options["append-system-prompt"] else []
    return snapshot + [f"--{name}={value}" for name, value in options.items() if value]
