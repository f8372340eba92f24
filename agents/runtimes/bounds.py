"""Values from a program's output, made small enough and clean enough to store and show."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

BODY_BYTES = 16 * 1024  # of one text within an event
MOST_ITEMS = 64  # of one list or mapping within an event
MOST_DEPTH = 6
CUT = " […]"


def clean(text: str) -> str:
    """`text` as every database stores it: no NUL (PostgreSQL refuses it), no half of a surrogate pair."""
    if text.isascii():
        return text.replace("\x00", "\ufffd") if "\x00" in text else text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")


def clip(text: str, limit: int = BODY_BYTES) -> tuple[str, int]:
    """The first `limit` bytes of `text` as clean text, and the number of bytes left out."""
    if len(text) <= limit and text.isascii() and "\x00" not in text:
        return text, 0
    raw = clean(text[: limit + 1]).encode()
    whole = len(raw) if len(text) <= limit + 1 else len(clean(text).encode())
    if whole <= limit:
        return raw.decode(), 0
    return raw[:limit].decode("utf-8", "ignore"), whole - limit


def word(value: Any, limit: int = 100) -> str:
    """A short text, such as a name or an id; "" for anything else than a text."""
    if type(value) is not str:
        return ""
    if len(value) <= limit and value.isascii() and "\x00" not in value:
        return value
    return clip(value, limit)[0]


def clipped(text: str, limit: int = BODY_BYTES) -> dict[str, Any]:
    """`{"text": …}` for an event's body, with `"cut"` (bytes left out) only where something was."""
    kept, cut = clip(text, limit)
    return {"text": kept, "cut": cut} if cut else {"text": kept}


def line_of(text: str, limit: int = 200) -> str:
    """The first line of `text`, for a title."""
    stripped = text.strip()
    first = stripped.split("\n", 1)[0]
    kept, cut = clip(first, limit)
    return kept + CUT if cut or len(first) < len(stripped) else kept


def readable(value: Any) -> str:
    """`value` as a person reads it: text as it is, everything else as indented JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, indent=1, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)[:BODY_BYTES]


def bounded(value: Any, limit: int = 500, depth: int = 0) -> Any:
    """A small copy of any JSON value: texts of `limit` bytes, 64 items, 6 levels."""
    if isinstance(value, str):
        kept, cut = clip(value, limit)
        return kept + CUT if cut else kept
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)[:40]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if depth >= MOST_DEPTH:
        return CUT.strip()
    if isinstance(value, dict):
        return {
            clip(str(key), 200)[0]: bounded(one, limit, depth + 1)
            for key, one in list(value.items())[:MOST_ITEMS]
        }
    if isinstance(value, list):
        return [bounded(one, limit, depth + 1) for one in value[:MOST_ITEMS]]
    return clip(repr(value), limit)[0]


def asked(arguments: Any) -> Any:
    """The arguments of a call that a person is asked about: as much as fits into an event, what is cut ends with CUT."""
    whole = bounded(arguments, BODY_BYTES // 2)
    return whole if len(json.dumps(whole)) <= 2 * BODY_BYTES else bounded(arguments)


def copied(state: Mapping[str, Any] | None) -> dict[str, Any]:
    """A deep copy of a parser's state as every database stores it, so that a stored one does not change while parsing goes on."""
    return {clean(key): _copied(value) for key, value in (state or {}).items()}


def _copied(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): _copied(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(one) for one in value]
    return value if value is None or isinstance(value, int | float) else copy.deepcopy(value)


def mapping(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping, else an empty one: programs change their formats."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def number(value: Any) -> int:
    """A count or a time as a plain, not negative, 63-bit integer; 0 for anything else."""
    if type(value) is int:
        return value if 0 <= value < 2**63 else 0 if value < 0 else 2**63 - 1
    if not isinstance(value, float):
        return 0
    try:
        return max(0, min(int(value), 2**63 - 1))
    except (ValueError, OverflowError):  # nan, inf
        return 0
