"""The `opencode` runtime: opencode, headless, one turn per session, for any model behind OpenAI's Chat Completions.

The prompt goes in on stdin, which is then closed. It keeps its conversations in a database: that is carried over, and
`followed` moves the one in it to the new copy, within the confinement. What a repository brings along for it (plugins,
which are programs, and settings) is left aside. It runs within bubblewrap only.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.processes.confine import allowed_environment

from .base import Command, FileOp, Launch, Redact
from .open_models import FOLLOWER, OpenModels
from .opencode_stream import OpencodeParser
from .programs import (
    base_url_of,
    copied_into,
    instructions_of,
    is_plain,
    named_proxies,
    plain_transcript,
    readable_of,
    refuse_keys,
    tools_of,
)

DEFAULT_MODEL = "gpt-5.5"
PROVIDER = "https://api.openai.com"
KEY = "HUSKIES_PROVIDER_KEY"  # the variable that holds the key, named in the provider's settings
TOOLS = ("bash", "read", "edit", "write", "glob", "grep")
LIMITS = {"context": 128_000, "output": 16_384}  # tokens: it asks, and the models' own are not known here
DATA = Path("data", "opencode")
DATABASE = ("opencode.db", "opencode.db-wal")  # what a killed one had not brought in stands in the second
SWITCHES = (
    "OPENCODE_DISABLE_AUTOUPDATE",
    "OPENCODE_DISABLE_CLAUDE_CODE",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS",
    "OPENCODE_DISABLE_LSP_DOWNLOAD",
    "OPENCODE_DISABLE_MODELS_FETCH",
    "OPENCODE_DISABLE_PROJECT_CONFIG",
    "OPENCODE_DISABLE_SHARE",
    "OPENCODE_PURE",
)
INSTALL = "Install opencode (https://opencode.ai) so that `opencode` is on the PATH, or name the program in HUSKIES_OPENCODE."


class Opencode(OpenModels):
    name = "opencode"
    label = "opencode (an open agent program, for any model behind OpenAI's Chat Completions)"
    provider = PROVIDER
    tested = ">=1.18.33,<1.19"
    title, word, variable = "opencode", "opencode", "HUSKIES_OPENCODE"
    install = INSTALL
    default_model = DEFAULT_MODEL

    def command(self, launch: Launch) -> Command:
        """The program's command line; raises `LaunchRefused` for what it cannot be given."""
        program, model, key = self.checked(launch)
        refuse_keys(self.name, launch.agent_config, ("max_turns",))
        argv = self.followed(launch, model, program)
        # With a title of ours it asks no model for one.
        argv += ["run", "--format=json", f"--model=huskies/{model}", "--auto", "--title=story", "--thinking"]
        own = launch.config
        env = {
            **named_proxies(),
            **launch.git_environment(),
            **dict.fromkeys(SWITCHES, "1"),
            **{f"XDG_{name.upper()}_HOME": str(own / name) for name in ("config", "data", "cache", "state")},
            "OPENCODE_CONFIG_CONTENT": json.dumps(_settings(launch, model)),
            KEY: key,
        }
        files: list[FileOp] = [["mkdir", str(own / "config" / "opencode")]]
        if instructions := instructions_of(launch):
            files.append(["write", str(own / "config" / "opencode" / "AGENTS.md"), instructions, 0o600])
        allowed = allowed_environment(launch.home, launch.tmp, env)
        return Command(argv, allowed, launch.prompt, files=files, readable=[FOLLOWER, *readable_of(program)])

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        """The database of the conversation, and nothing else of the earlier session's folder."""
        source = previous / DATA
        if not all(is_plain(one, stat.S_ISDIR) for one in (previous, source.parent, source)):
            return []
        if not plain_transcript(source / DATABASE[0]):
            return []
        files = [source / name for name in DATABASE if plain_transcript(source / name)]
        return [step for one in files for step in copied_into(one, launch.config / DATA)]

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> OpencodeParser:
        return OpencodeParser(state, redact)


def _settings(launch: Launch, model: str) -> dict[str, Any]:
    return {
        "autoupdate": False,
        "share": "disabled",
        "permission": {"*": "deny", **dict.fromkeys(tools_of(launch.agent_config, TOOLS), "allow")},
        "provider": {
            "huskies": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "huskies",
                "options": {"baseURL": base_url_of(launch) or f"{PROVIDER}/v1", "apiKey": f"{{env:{KEY}}}"},
                "models": {model: {"name": model, "limit": LIMITS}},
            }
        },
    }
