"""The home that the `acp` runtime's client (acp_agent) gives its program, and what it remembers beside it.

The home comes from the session before, file by file. It names the working copy of that session, in texts and names, and
programs find a conversation by its folder: so the path becomes that of the present copy. Everything here was in an agent's
hands and is read within the confinement.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

MOST_REWRITTEN = 32 * 1024 * 1024  # bytes of a file
NO_WORD = re.compile(r"[^A-Za-z0-9]")
LEAST_NAME = 8  # characters of a folder's name that is told from a word by chance
# Gemini CLI 0.61 begins a conversation anew in its record's very file if it loads it within the minute that the file's name tells.
GEMINI_RECORD = re.compile(r"session-\d{4}-\d\d-\d\dT\d\d-\d\d-([0-9a-f]{8}\.jsonl)")

Json = dict[str, Any]


def read_memory(path: str) -> Json:
    """What the session before left; empty if it is not to be read."""
    try:
        value = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_memory(path: str, memory: Json) -> None:
    Path(f"{path}.new").write_text(json.dumps(memory))
    os.replace(f"{path}.new", path)  # noqa: PTH105


def move_home(home: str, before: str, now: str) -> None:
    """Let everything below `home` name the folder `now` where it named `before`. In files that are no texts the length must not change."""
    if not before or before == now:
        return
    names = (os.path.basename(before), os.path.basename(now))  # noqa: PTH119
    is_key = len(names[0]) == len(names[1]) >= LEAST_NAME and names[0] != names[1]
    # Some name a folder by the whole path, with dashes for what is no letter.
    swaps = [(NO_WORD.sub("-", before), NO_WORD.sub("-", now)), *([names] if is_key else [])]
    for folder, folders, files in os.walk(home, topdown=False):
        for name in files:
            path = Path(folder, name)
            _rewrite(path, os.fsencode(before), os.fsencode(now))
            if is_key:
                _rewrite(path, os.fsencode(names[0]), os.fsencode(names[1]))
        for name in (*files, *folders):
            _rename(Path(folder, name), swaps)


def _rewrite(path: Path, old: bytes, new: bytes) -> None:
    if not path.is_file() or path.stat().st_size > MOST_REWRITTEN:
        return
    content = path.read_bytes()
    if old in content and (len(old) == len(new) or b"\0" not in content):
        path.write_bytes(content.replace(old, new))


def _rename(path: Path, swaps: list[tuple[str, str]]) -> None:
    name = path.name
    for old, new in swaps:
        name = name.replace(old, new)
    if path.parent.name == "chats":
        name = GEMINI_RECORD.sub(r"session-2000-01-01T00-00-\1", name)
    target = path.with_name(name)
    if target != path and not target.exists():
        path.rename(target)
