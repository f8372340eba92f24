"""What agent programs obey in a repository: settings, hooks, servers of tools, environments.

Read-only for a confined agent at the top of its copy, even before they exist; not there at all where an earlier session changed
them and nobody approved that; and a story's change of one waits for an admin before it lands.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

GUARDED: Final = (
    ".claude",
    ".codex",
    ".cursor",
    ".env",
    ".gemini",
    ".mcp.json",
    ".opencode",
    ".qwen",
    "opencode.json",
    "opencode.jsonc",
)


OPEN: Final = ("opencode.json", "opencode.jsonc")
"""Where they do not exist, nothing holds their place: opencode does not start beside a folder of that name (measured)."""


def places(copy: Path) -> list[Path]:
    """Read-only in a confined copy, as far as they exist."""
    return [copy / name for name in GUARDED]


def reserved(places: Iterable[Path]) -> list[Path]:
    """Those that get an empty folder where nothing is, so that they exist."""
    return [place for place in places if place.name not in OPEN]
