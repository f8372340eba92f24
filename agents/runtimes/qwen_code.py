"""The `qwen-code` runtime: Qwen Code, headless, one turn per session; the door to any model behind OpenAI's Chat Completions.

The prompt goes in on stdin, which is then closed. A conversation belongs to a folder's name, so it is carried over
under the new copy's. Our settings stand where the administrator's do: above those that a repository brings along.
It runs within bubblewrap only: its shell could read the server's own files.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.processes.confine import allowed_environment

from .base import Command, FileOp, Launch, Redact
from .open_models import FOLLOWER, OpenModels
from .programs import (
    base_url_of,
    conversation_of,
    instructions_of,
    is_plain,
    named_proxies,
    plain_transcript,
    readable_of,
    tools_of,
)
from .qwen_stream import TOOLS, QwenParser

DEFAULT_MODEL = "qwen3-coder-plus"
PROVIDER = "https://dashscope.aliyuncs.com"
BASE_URL = f"{PROVIDER}/compatible-mode/v1"
PROVIDER_RETRIES = 0  # within a try; it makes seven of them, and as many for a limit as this says
INSTALL = (
    "Install Qwen Code (https://qwenlm.github.io/qwen-code-docs) and node 20 or newer, so that `qwen` and `node` are "
    "on the PATH, or name the program in HUSKIES_QWEN."
)


class QwenCode(OpenModels):
    name = "qwen-code"
    label = "Qwen Code (Alibaba's agent program, for any model behind OpenAI's Chat Completions)"
    provider = PROVIDER
    tested = ">=0.24.4,<0.25"
    title, word, variable = "Qwen Code", "qwen", "HUSKIES_QWEN"
    install = INSTALL
    default_model = DEFAULT_MODEL

    def command(self, launch: Launch) -> Command:
        """The program's command line; raises `LaunchRefused` for what it cannot be given."""
        program, model, key = self.checked(launch)
        argv = self.followed(launch, model, _start(program))
        argv += ["--auth-type=openai", "--output-format=stream-json", "--include-partial-messages"]
        argv += ["--approval-mode=yolo", f"--model={model}"]
        argv += ["--allowed-mcp-server-names=none-of-them", "--extensions=none"]
        argv += [f"--{'resume' if launch.resume else 'session-id'}={conversation_of(launch, self.title)}"]
        if turns := launch.agent_config.get("max_turns"):
            argv.append(f"--max-session-turns={int(turns)}")
        if instructions := instructions_of(launch):
            argv.append(f"--append-system-prompt={instructions}")
        settings = launch.config / "ours.json"
        env = {
            **named_proxies(),
            **launch.git_environment(),
            "OPENAI_API_KEY": key,
            "OPENAI_BASE_URL": base_url_of(launch) or BASE_URL,
            "OPENAI_MODEL": model,
            "QWEN_HOME": str(launch.config),
            "QWEN_CODE_SYSTEM_SETTINGS_PATH": str(settings),
            "QWEN_CODE_SUPPRESS_YOLO_WARNING": "1",
            "NODE_TLS_REJECT_UNAUTHORIZED": "1",
        }
        files: list[FileOp] = [
            ["mkdir", str(launch.config)],
            ["write", str(settings), json.dumps(_settings(launch)), 0o600],
        ]
        allowed = allowed_environment(launch.home, launch.tmp, env)
        readable = [FOLLOWER, *readable_of(program)]
        return Command(argv, allowed, launch.prompt, files=files, readable=readable)

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        """The record of the conversation, and nothing else of the earlier session's folder."""
        projects = previous / "projects"
        if not is_plain(previous, stat.S_ISDIR) or not is_plain(projects, stat.S_ISDIR):
            return []
        name = f"{conversation_of(launch, self.title)}.jsonl"
        for folder in sorted(projects.iterdir())[:1000]:
            chats = folder / "chats"
            if not is_plain(folder, stat.S_ISDIR) or not is_plain(chats, stat.S_ISDIR):
                continue
            if plain_transcript(chats / name):
                target = launch.config / "projects" / _name_of(launch.copy) / "chats"
                return [["mkdir", str(target)], ["copy", str(chats / name), str(target / name)]]
        return []

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> QwenParser:
        return QwenParser(state, redact)


def _start(program: list[str]) -> list[str]:
    """Its own start runs node a second time, which a kill does not pass on: the same without that."""
    inner = Path(program[-1]).with_name("cli.js")
    if len(program) == 2 and inner.is_file():
        return [program[0], "--expose-gc", str(inner)]
    return program


def _name_of(copy: Path) -> str:
    """The name by which it knows a folder's conversations."""
    return re.sub(r"[^a-zA-Z0-9]", "-", os.path.realpath(copy))


def _settings(launch: Launch) -> dict[str, Any]:
    retries = int(launch.agent_config.get("provider_retries", PROVIDER_RETRIES))
    return {
        "tools": {"core": tools_of(launch.agent_config, TOOLS)},
        "model": {"generationConfig": {"maxRetries": retries}},
        # Its memory would ask the model once more after each run.
        "memory": {"enableManagedAutoMemory": False, "enableManagedAutoDream": False},
        "general": {"enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "disableAllHooks": True,
    }
