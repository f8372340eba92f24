"""What the agent of the direct-API runtimes (api_agent) prints: one JSON object per line; `api_stream` reads them. Standard library only."""

import json
import os
from typing import Any

MOST_TEXT = 16 * 1024  # characters of one text; of a longer one the head is printed
LONG_LINE = 4096  # characters of an unfinished line after which its words are passed on

Json = dict[str, Any]


def emit(kind: str, /, **fields: Any) -> None:
    view = memoryview(json.dumps({"type": kind, **fields}).encode() + b"\n")
    while view:
        view = view[os.write(1, view) :]


def short(text: str) -> Json:
    """A text for a line, with the number of characters left out."""
    return {"text": text[:MOST_TEXT], **({"cut": len(text) - MOST_TEXT} if len(text) > MOST_TEXT else {})}


def smaller(value: Any, limit: int = MOST_TEXT, depth: int = 0) -> Any:
    """A copy of a tool's arguments that fits into a line."""
    if isinstance(value, str):
        return value if len(value) <= limit else value[:limit] + " […]"
    if isinstance(value, dict) and depth < 6:
        return {str(key)[:200]: smaller(one, limit // 2, depth + 1) for key, one in list(value.items())[:16]}
    if isinstance(value, list) and depth < 6:
        return [smaller(one, limit // 2, depth + 1) for one in value[:16]]
    return None if isinstance(value, dict | list) else value


class Words:
    """Words of the model as they come, printed by whole lines: a secret is never split over two of ours."""

    def __init__(self) -> None:
        self.kind = "text"
        self.waiting = ""

    def add(self, kind: str, words: str) -> None:
        if kind != self.kind:
            self.end()
        self.kind = kind
        self.waiting += words
        end = self.waiting.rfind("\n") + 1
        if not end and len(self.waiting) > LONG_LINE:
            end = self.waiting.rfind(" ") + 1 or (len(self.waiting) if len(self.waiting) > MOST_TEXT else 0)
        if end:
            emit(self.kind, text=self.waiting[:end], more=True)
            self.waiting = self.waiting[end:]

    def end(self) -> None:
        if self.waiting:
            emit(self.kind, text=self.waiting)
        self.waiting = ""
