"""The `command` runtime: any executable as an agent. The prompt on stdin, its output as text, the exit code decides.

The agent's entry names it by `command` (a list, or a line for the shell) and `args`; an admin has approved both. It
runs in the working copy, within bubblewrap only, and knows no conversation: each session begins with the whole
prompt. What it may need stands in its environment: HUSKIES_STORY (the number), HUSKIES_BASE_BRANCH, HUSKIES_MODEL,
and of the agent's credential HUSKIES_API_KEY and HUSKIES_BASE_URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.processes.confine import allowed_environment

from .base import Command, Event, FileOp, Found, Launch, LaunchRefused, Outcome, Redact
from .bounds import clip, clipped, text
from .endings import signal_of
from .lines import STDOUT, LineParser
from .programs import OneTurn, refuse_keys

SHELL = Path("/bin/sh")
# It says nothing of its requests, so that nothing can be counted.
NOT_KEPT = (
    "allowed_tools",
    "disallowed_tools",
    "max_turns",
    "max_tool_turns",
    "max_budget_usd",
    "system_prompt",
)
NOT_RUN = {126: "cannot be executed", 127: "was not found"}  # a shell's exit codes for that


class AnyCommand(OneTurn):
    name = "command"
    label = "a command of your own: the prompt on stdin, the exit code decides"
    keys: tuple[str, ...] = ("command", "args")
    provider = ""
    tested = ""
    trial = None

    def command(self, launch: Launch) -> Command:
        """The command as the entry names it; raises `LaunchRefused` without one, and where nothing can be confined."""
        if launch.level != "bubblewrap":
            raise LaunchRefused(
                "A command can do whatever the server's own user can: it needs bubblewrap on this host. Install it."
            )
        refuse_keys(self.name, launch.agent_config, NOT_KEPT)
        return Command(argv_of(launch.agent_config), environment_of(launch), launch.prompt)

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        return []

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> CommandParser:
        return CommandParser(state, redact)

    def program(self) -> Path | None:
        return SHELL

    def find(self) -> Found:
        return Found(SHELL, None, None, "")


def environment_of(launch: Launch) -> dict[str, str]:
    """The complete environment of a command of one's own. Raises `LaunchRefused` for a log-in that cannot be handed on."""
    credential = launch.credential
    if credential is not None and credential.kind == "host_login":
        raise LaunchRefused(
            "A command has no log-in of the host's. Name a credential that is a key or a token."
        )
    env = {
        "HUSKIES_STORY": str(launch.story_number),
        "HUSKIES_BASE_BRANCH": launch.base_branch,
        "HUSKIES_MODEL": launch.model or "",
        **launch.git_environment(),
    }
    if credential is not None:
        env |= {"HUSKIES_API_KEY": credential.value, "HUSKIES_BASE_URL": credential.base_url or ""}
    given = {name: value for name, value in env.items() if value}
    return allowed_environment(launch.home, launch.tmp, given)


def argv_of(config: Mapping[str, Any]) -> list[str]:
    """The command that an agent's entry names. Raises `LaunchRefused` without one."""
    command, args = config.get("command"), [str(one) for one in config.get("args") or ()]
    if isinstance(command, str) and command.strip():
        line = f'{command} "$@"' if args else command
        return [str(SHELL), "-c", line, "sh", *args]
    if isinstance(command, list | tuple) and command:
        return [*(str(one) for one in command), *args]
    raise LaunchRefused("The agent has no `command`: name one in its entry of the project file.")


class CommandParser(LineParser):
    """Every line of stdout is text; it has begun when its step has."""

    def _note(self, data: bytes) -> list[Event]:
        events = super()._note(data)
        begins = any(one.body.get("note") == "step-start" for one in events)
        return [*events, *self._begin()] if begins and self._main else events

    def _begin(self) -> list[Event]:
        if self._started:
            return []
        self._started = True
        return [Event("started", {})]

    def _whole(self, stream: int, line: bytes, over: int) -> list[Event]:
        if stream != STDOUT or not self._main:
            return super()._whole(stream, line, over)
        body = clipped(line.decode("utf-8", "replace"))
        if over:
            body["cut"] = body.get("cut", 0) + over
        return [*self._begin(), Event("text", body)]

    def _message(self, message: dict[str, Any]) -> list[Event]:
        return []  # no line of it means anything to us

    def _judged(self) -> Outcome | Literal["success"] | None:
        return None

    def outcome(self, exit: Mapping[str, Any] | None) -> Outcome:
        known = super().outcome(exit)
        end = {**(exit or {}), **(self._main_end if self._main_end.get("outcome") else {})}
        code, by_signal = end.get("code"), signal_of(end)
        if known.kind not in ("crashed", "config") or known.detail == "step" or by_signal is not None:
            return known
        if code == 0:
            return Outcome("done", "The command ended with exit code 0.")
        said = clip(text(self._stderr).strip(), 600)[0]
        tail = f" It said: {said}" if said else ""
        if code in NOT_RUN:
            why = f"The agent's command {NOT_RUN[code]} (exit code {code}): correct its `command`.{tail}"
            return Outcome("config", why, detail="program")
        if isinstance(code, int):
            return Outcome("crashed", f"The command ended with exit code {code}.{tail}")
        return known
