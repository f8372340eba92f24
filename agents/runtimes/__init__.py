"""The runtimes: drivers of agent programs. One file each, all alike; see `base`."""

from __future__ import annotations

from .acp import Acp
from .api import DIRECT_APIS
from .base import Runtime
from .claude_code import ClaudeCode
from .codex import Codex
from .command import AnyCommand
from .gemini_cli import GeminiCli
from .opencode import Opencode
from .qwen_code import QwenCode
from .scripted import Scripted

RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        ClaudeCode(),
        Codex(),
        GeminiCli(),
        QwenCode(),
        Opencode(),
        *DIRECT_APIS,
        Acp(),
        AnyCommand(),
        Scripted(),
    )
}


class UnknownRuntime(LookupError):
    """No runtime has this name; the message says which there are."""


def get_runtime(name: str) -> Runtime:
    """The runtime called `name`; raises `UnknownRuntime`."""
    try:
        return RUNTIMES[name]
    except KeyError:
        known = ", ".join(sorted(RUNTIMES))
        raise UnknownRuntime(f"There is no runtime {name!r}. There are: {known}.") from None
