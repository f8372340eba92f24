"""The end of a gate's output, as text that is safe to keep, to show, and to hand to an agent."""

from __future__ import annotations

import re
from collections.abc import Iterable

OUTPUT_CHARACTERS = 8_000

# ECMA-48: CSI sequences (colours, cursor), OSC and other strings (titles, links), and two-character escapes.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|\x9b[0-?]*[ -/]*[@-~]"
)
# What is left of C0 and C1, and the marks that reorder text on a page.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def readable(text: str) -> str:
    """Text without terminal sequences and control characters; of a progress line that overwrote itself, its last state."""
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _CONTROLS.sub("", _ESCAPES.sub("", "\n".join(lines)))


def tail(newest_first: Iterable[str], most: int = OUTPUT_CHARACTERS) -> str:
    """The last `most` characters of lines that are given newest first; reads no more lines than it needs."""
    kept: list[str] = []
    size = 0
    for line in newest_first:
        kept.append(readable(line))
        size += len(kept[-1]) + 1
        if size > most:
            break
    text = "\n".join(reversed(kept))
    return text if len(text) <= most else f"…{text[1 - most :]}"
