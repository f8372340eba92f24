"""The runtimes `openai-api`, `gemini-api` and `anthropic-api`: a model by its provider's API alone, with file and shell tools of ours.

The agent (api_agent) is a program of our own, run as every other: under the runner, confined, ended with everything it started. It wants
packages of its own (api_packages). The prompt and the key go in on stdin; where the requests go stands in its environment. What people say
meanwhile, and their answers, follow on stdin.

Without bubblewrap it has no shell: it may read and edit files of its working copy, and nothing else.
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.processes.confine import allowed_environment

from . import api_packages
from .api_stream import ApiParser
from .base import Command, Decision, FileOp, Found, Launch, LaunchRefused, ProgramMissing, Redact, Trial
from .programs import (
    base_url_of,
    conversation_of,
    copied_into,
    instructions_of,
    is_plain,
    key_of,
    model_of,
    plain_transcript,
    tools_of,
)

AGENT = Path(__file__).with_name("api_agent.py")
FILES = (AGENT, *(AGENT.with_name(f"api_{name}.py") for name in ("lines", "models")))
READ_TOOLS = ("read_file", "list_directory", "search_files", "find_files")
EDIT_TOOLS = (*READ_TOOLS, "create_directory", "write_file", "edit_file")
SHELL_TOOLS = ("run_command", "start_command", "check_command", "stop_command")
# At 0.6, 1.2, 2.4 … seconds, or as the provider asks; after that the server waits, without holding an agent.
PROVIDER_RETRIES = 4
PERMISSION_SECONDS = 900.0  # the server answers before; this is for one that does not run
LOG_IN = (
    "Add one: ./huskies credential add NAME, with the runtime's name or that of the agent's `credential`."
)
INSTALL = f"Install them: {api_packages.COMMAND}."


@dataclass(frozen=True)
class DirectApi:
    """One provider's API. `version`: what its base URL ends with."""

    name: str
    label: str
    api: str
    provider: str
    version: str
    default_model: str
    keys: tuple[str, ...] = ()
    tested: str = ">=2.62,<2.63"
    interrupts: bool = True  # its turn can be ended, and it goes on with other words

    @property
    def trial(self) -> Trial:
        return Trial(self.version)

    def command(self, launch: Launch) -> Command:
        """Our agent's command line; raises `LaunchRefused` for what it cannot be given."""
        packages = api_packages.installed()
        if packages is None:
            raise ProgramMissing(f"The packages of {self.name} are not installed on this host. {INSTALL}")
        config = launch.agent_config
        request = {
            "api": self._api(config),
            "model": model_of(launch, self.default_model),
            "key": key_of(launch, self.name, LOG_IN, self.provider),
            "memory": str(_memory(launch.config, launch)),
            "prompt": launch.prompt,
            "resume": launch.resume,
            "instructions": instructions_of(launch),
            "tools": _tools(config, free=launch.level == "bubblewrap"),
            "max_turns": int(config.get("max_turns") or 0),
            "retries": int(config.get("provider_retries", PROVIDER_RETRIES)),
            "permissions": "ask" if config.get("permissions") == "ask" else "free",
            "permission_seconds": PERMISSION_SECONDS,
        }
        base_url = base_url_of(launch) or self.provider + self.version
        env = {**launch.git_environment(), "HUSKIES_BASE_URL": base_url}
        return Command(
            [sys.executable, "-I", "-S", str(AGENT), str(packages)],
            allowed_environment(launch.home, launch.tmp, env),
            _line(request),
            keep_stdin=True,
            interrupt=_line({"type": "interrupt"}),
            turn_begins={"type": "turn_start"},
            turn_ends={"type": "turn_end"},
            files=[["mkdir", str(_memory(launch.config, launch).parent)]],
            readable=[packages, *FILES],
        )

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        source = _memory(previous, launch)
        if not is_plain(source.parent, stat.S_ISDIR) or not plain_transcript(source):
            return []
        return copied_into(source, _memory(launch.config, launch).parent)

    def message(self, text: str) -> str | None:
        return json.dumps({"type": "message", "text": text})

    def answer(self, request: Mapping[str, Any], decision: Decision) -> str | None:
        said = {"allow": decision.allow, "reason": decision.reason}
        return json.dumps({"type": "answer", "id": request.get("id"), **said})

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> ApiParser:
        return ApiParser(state, redact)

    def program(self) -> Path | None:
        return AGENT if api_packages.installed() else None

    def find(self) -> Found:
        if api_packages.installed() is None:
            return Found(None, None, None, f"Its packages are not installed. {INSTALL}")
        return Found(AGENT, api_packages.installed_version(), None, "")

    def _api(self, config: Mapping[str, Any]) -> str:
        return (
            f"{self.api}-chat" if "wire_api" in self.keys and config.get("wire_api") == "chat" else self.api
        )


OPENAI = DirectApi(
    "openai-api",
    "a model by OpenAI's API, or one that speaks it, with tools of ours",
    "openai",
    "https://api.openai.com",
    "/v1",
    "gpt-5.5",
    keys=("wire_api",),
)
GEMINI = DirectApi(
    "gemini-api",
    "a model by Google's Gemini API, with tools of ours",
    "gemini",
    "https://generativelanguage.googleapis.com",
    "",
    "gemini-3.8-flash",
)
ANTHROPIC = DirectApi(
    "anthropic-api",
    "a model by Anthropic's API, with tools of ours",
    "anthropic",
    "https://api.anthropic.com",
    "",
    "claude-sonnet-5-5",
)
DIRECT_APIS = (OPENAI, GEMINI, ANTHROPIC)


def _memory(config: Path, launch: Launch) -> Path:
    return config / "api" / f"{conversation_of(launch, 'ours')}.json"


def _tools(config: Mapping[str, Any], *, free: bool) -> list[str]:
    """The names of the tools that the model is offered: only whole ones can be allowed or refused."""
    offered = (*EDIT_TOOLS, *SHELL_TOOLS) if free else EDIT_TOOLS
    for one in (*(config.get("allowed_tools") or ()), *(config.get("disallowed_tools") or ())):
        if "(" in str(one):
            raise LaunchRefused(
                f"allowed_tools and disallowed_tools cannot hold {one!r}: this agent's tools are allowed whole. Name the tool."
            )
    return tools_of(config, offered)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
