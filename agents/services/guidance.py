"""What a project tells every agent by files of its base branch: never by those of a story's own branch, which nobody has accepted."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pipeline.git.command import GitError
from pipeline.git.reading import present_paths, show_file

OWN = ".huskies/AGENT.md"
"""Instructions for agents of this server alone; they stand in the first prompt."""
TO_READ = (
    "README.md",
    "AGENTS.md",
    "CLAUDE.md",
    "ARCHITECTURE.md",
    "specs/00_CONTEXT.md",
    "specs/tech/STACK.md",
)
"""From the whole to the map of the sources; the prompt names those that are there."""
MOST_BYTES = 32 * 1024


class Guidance(NamedTuple):
    """`text`: of OWN; `to_read`: paths that exist."""

    text: str = ""
    to_read: tuple[str, ...] = ()


def of(control: Path, commit: str) -> Guidance:
    """At a commit of the base branch; nothing of a repository that cannot be read, as the session will say."""
    try:
        return _read(control, commit) if commit else Guidance()
    except GitError:
        return Guidance()


@lru_cache(maxsize=64)
def _read(control: Path, commit: str) -> Guidance:
    there = present_paths(control, commit, [OWN, *TO_READ])
    own = show_file(control, commit, OWN, max_bytes=MOST_BYTES) if OWN in there else None
    text = own.data.decode("utf-8", "replace").strip() if own is not None else ""
    return Guidance(text, tuple(path for path in TO_READ if path in there))
