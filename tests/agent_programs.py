"""The real agent programs that tests drive: where each is found, and how it is sent to the stand-in for its provider."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True, eq=False)  # each is itself
class AgentProgram:
    """One program. `entry` is of an agent that must not try for long; `suffix` ends the base URL as the program wants it.

    `silence` is how long (seconds) it may print nothing while it starts on a busy machine, and then some.
    """

    runtime: str
    title: str
    command: str
    variable: str
    model: str
    suffix: str = ""
    entry: Mapping[str, Any] = field(default_factory=dict)
    silence: float = 20.0

    @property
    def marker(self) -> str:
        return f"needs_{self.command}"

    def find(self) -> Path | None:
        """Named in the environment, else in a wheel, else where .ci/run installs those of npm, else on the PATH."""
        if named := os.environ.get(self.variable):
            return Path(named) if os.access(named, os.X_OK) else None
        modules = Path(sys.prefix, "agent-programs", "node_modules")
        places = [
            modules / ".bin" / self.command,
            *modules.glob(f"{self.command}-linux-*/bin/{self.command}"),
        ]
        if self.command == "claude" and (wheel := find_spec("claude_agent_sdk")):
            places = [Path(one, "_bundled", "claude") for one in wheel.submodule_search_locations or []]
        on_path = shutil.which(self.command)
        places += [Path(on_path)] if on_path else []
        return next((place for place in places if os.access(place, os.X_OK)), None)


@dataclass(frozen=True, eq=False)
class DirectApi(AgentProgram):
    """Our own agent of the direct-API runtimes, which is there where its packages are."""

    @property
    def marker(self) -> str:
        return "needs_api"

    def find(self) -> Path | None:
        from agents.runtimes import RUNTIMES  # here: this file must be read where there is only Python

        return RUNTIMES[self.runtime].program()


CLAUDE = AgentProgram(
    "claude-code", "Claude Code", "claude", "HUSKIES_CLAUDE", "sonnet", "", {"provider_retries": 1}, 2.0
)
CODEX = AgentProgram(
    "codex",
    "Codex",
    "codex",
    "HUSKIES_CODEX",
    "gpt-5.5",
    "/v1",
    {"provider_retries": 1, "provider_patience": 5},
    8.0,
)
GEMINI = AgentProgram(
    "gemini-cli", "Gemini CLI", "gemini", "HUSKIES_GEMINI", "gemini-3.8-flash", "", {"provider_retries": 1}
)
QWEN = AgentProgram(
    "qwen-code",
    "Qwen Code",
    "qwen",
    "HUSKIES_QWEN",
    "qwen3-coder-plus",
    "/v1",
    {"provider_patience": 2},
    30.0,
)
OPENCODE = AgentProgram(
    "opencode",
    "opencode",
    "opencode",
    "HUSKIES_OPENCODE",
    "open-model",
    "/v1",
    {"provider_patience": 5},
    30.0,
)
_ONE_TRY = {"provider_retries": 1}
OPENAI_API = DirectApi("openai-api", "OpenAI API", "", "", "gpt-5.5", "/v1", _ONE_TRY)
GEMINI_API = DirectApi("gemini-api", "Gemini API", "", "", "gemini-3.8-flash", "", _ONE_TRY)
ANTHROPIC_API = DirectApi("anthropic-api", "Anthropic API", "", "", "claude-sonnet-5-5", "", _ONE_TRY)
APIS = (OPENAI_API, GEMINI_API, ANTHROPIC_API)
AGENT_PROGRAMS = (CLAUDE, CODEX, GEMINI, QWEN, OPENCODE)


def programs(*chosen: AgentProgram, long: Collection[AgentProgram] = ()) -> pytest.MarkDecorator:
    """Runs a test with each of the `program`s, those of `long` only by ./huskies test --long; skipped where one is missing.

    On PostgreSQL with Claude Code alone: what the others do differently is no matter of the database.
    """
    each = [pytest.param(one, id=one.runtime, marks=marks_of(one, one in long)) for one in (*chosen, *long)]
    return pytest.mark.parametrize("program", each)


def marks_of(program: AgentProgram, is_long: bool) -> list[pytest.MarkDecorator]:
    marks = [getattr(pytest.mark, program.marker), pytest.mark.needs_bubblewrap]
    marks += [pytest.mark.long] if is_long else []
    return marks + ([] if program == CLAUDE else [pytest.mark.on_sqlite])
