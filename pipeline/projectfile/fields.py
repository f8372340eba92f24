"""Readers of single values.

Text, numbers, durations, commands, paths. Each notes a problem and gives None if it cannot.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import available_timezones

import yaml

from pipeline.projectfile.values import Reader, T, Table, Value

Command = str | tuple[str, ...]
"""A line for `sh -c`, or a program with its arguments."""

MAX_TEXT = 32 * 1024  # characters; prompts are the longest texts
MAX_LINE = 1000
MAX_ITEMS = 200

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
_UNIT_NAMES = {SECOND: "seconds", MINUTE: "minutes", HOUR: "hours"}

_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?")
_SIZE = re.compile(r"(\d{1,12}) ?(B|kB|KB|MB|GB|KiB|MiB|GiB)?")
_SIZES = {None: 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# Rules of git-check-ref-format(1) for a branch name, and no leading dash.
_BAD_BRANCH = re.compile(r"^[-/.]|\.\.|@\{|^@$|[\x00-\x20\x7f~^:?*\[\\]|//|/\.|\.lock(?:/|$)|[/.]$")
_INT, _FLOAT, _BOOL = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool"))


def text(*, lines: bool = False, pattern: str | None = None, expected: str = "text") -> Reader[str]:
    """Text, taken as written.

    One line of at most 1,000 characters, or with `lines` up to 32 Ki characters.
    """
    compiled = re.compile(pattern) if pattern else None

    def read(value: Value) -> str | None:
        written = value.scalar
        if written is None or not written.strip():
            value.refuse_as_not(expected)
        elif fault := _fault(written, lines):
            value.refuse(f"`{value.path}` {fault}.")
        elif compiled and not compiled.fullmatch(written):
            value.refuse_as_not(expected)
        else:
            return written
        return None

    return read


def integer(low: int, high: int) -> Reader[int]:
    """A decimal whole number from `low` to `high`."""

    def read(value: Value) -> int | None:
        written = value.scalar
        if (
            written is None
            or not re.fullmatch(r"[+-]?\d{1,12}", written, re.ASCII)
            or not low <= int(written) <= high
        ):
            value.refuse_as_not(f"a whole number from {low:,} to {high:,}")
            return None
        return int(written)

    return read


def money(high: int) -> Reader[Decimal]:
    """US dollars, more than 0 and at most `high`, with up to four decimals; exact, never a float."""

    def read(value: Value) -> Decimal | None:
        written = value.scalar
        if (
            written is None
            or not re.fullmatch(r"\d{1,9}(\.\d{1,4})?", written, re.ASCII)
            or not 0 < Decimal(written) <= high
        ):
            value.refuse_as_not(f"an amount in US dollars above 0 and up to {high:,}, such as 5 or 2.50")
            return None
        return Decimal(written)

    return read


def flag(value: Value) -> bool | None:
    """True or false."""
    written = (value.scalar or "").lower()
    if written not in ("true", "false"):
        value.refuse_as_not("true or false")
        return None
    return written == "true"


def one_of(words: Collection[str]) -> Reader[str]:
    """One of some words."""

    def read(value: Value) -> str | None:
        if value.scalar not in words:
            value.refuse_as_not(f"one of {', '.join(words)}")
            return None
        return value.scalar

    return read


def duration(unit: timedelta, low: timedelta, high: timedelta) -> Reader[timedelta]:
    """A time such as `90s`, `20m` or `1h30m`; a bare number counts in `unit`."""

    def read(value: Value) -> timedelta | None:
        written = value.scalar or ""
        match = _DURATION.fullmatch(written.replace(" ", ""))
        result: timedelta | None = None
        if re.fullmatch(r"\d{1,9}", written, re.ASCII):
            result = int(written) * unit
        elif written and written.isascii() and match and any(match.groups()):
            days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
            result = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if result is None or not low <= result <= high:
            limits = f"from {format_duration(low)} to {format_duration(high)}"
            value.refuse_as_not(
                f"a time {limits}, such as 90s, 20m or 1h30m (bare numbers: {_UNIT_NAMES[unit]})"
            )
            return None
        return result

    return read


def format_duration(length: timedelta) -> str:
    """The shortest way to write whole seconds: `1d`, `20m`, `1h30m`, `0s`."""
    left, parts = int(length.total_seconds()), ""
    for letter, seconds in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, seconds)
        parts += f"{count}{letter}" if count else ""
    return parts or "0s"


def size(low: int, high: int) -> Reader[int]:
    """A number of bytes such as `50MB` or `10MiB`."""

    def read(value: Value) -> int | None:
        match = _SIZE.fullmatch(value.scalar or "")
        result = int(match[1]) * _SIZES[match[2]] if match and match[1].isascii() else None
        if result is None or not low <= result <= high:
            value.refuse_as_not(f"a size from {low:,} to {high:,} bytes, such as 50MB or 10MiB")
            return None
        return result

    return read


def many(reader: Reader[T], *, expected: str, single: bool = True) -> Reader[tuple[T, ...]]:
    """A list of what `reader` reads; with `single`, one value alone is a list of one."""

    def read(value: Value) -> tuple[T, ...] | None:
        if single and value.scalar is not None:
            one = reader(value)
            return None if one is None else (one,)
        if not isinstance(value.node, yaml.SequenceNode):
            value.refuse_as_not(expected)
            return None
        if len(value.node.value) > MAX_ITEMS:
            count = len(value.node.value)
            value.refuse(f"`{value.path}` has {count:,} entries, and at most {MAX_ITEMS} are allowed.")
            return None
        results = [reader(item) for item in value.items()]
        return tuple(result for result in results if result is not None)

    return read


def table(build: Callable[[Table], T]) -> Reader[T]:
    """A mapping, read key by key by `build`; unknown keys are refused."""

    def read(value: Value) -> T | None:
        if not isinstance(value.node, yaml.MappingNode):
            value.refuse_as_not("a mapping of keys")
            return None
        entries = Table(value)
        result = build(entries)
        entries.finish()
        return result

    return read


def command(value: Value) -> Command | None:
    """A line for `sh -c` or a list of program and arguments.

    Never starting with a dash, which would be an option.
    """
    line = text(lines=True, expected="a command: a line for the shell, or a list of program and arguments")
    result: Command | None
    if isinstance(value.node, yaml.SequenceNode):
        words = many(line, expected="")(value) or ()
        if len(words) != len(value.node.value):
            return None
        result = words
    else:
        result = line(value)
    if result == ():
        value.refuse(f"`{value.path}` is an empty list; name a program, or remove the key.")
        return None
    first = result[0] if isinstance(result, tuple) else result
    if first is not None and first.startswith("-"):
        value.refuse(f"`{value.path}` starts with a dash, which reads as an option; start with the program.")
        return None
    return result


def environment(value: Value) -> Mapping[str, str] | None:
    """Environment variables by name. The names that start with HUSKIES_ are the server's own and refused."""
    if not isinstance(value.node, yaml.MappingNode):
        value.refuse_as_not("a mapping of variable names to values")
        return None
    result: dict[str, str] = {}
    for name, key, entry in Table(value).rest():
        written = entry.scalar if not entry.empty else ""
        if not _ENVIRONMENT_NAME.fullmatch(name):
            key.refuse(f"`{key.path}` is no name for a variable; use letters, digits and _.")
        elif name.upper().startswith("HUSKIES_"):
            key.refuse(f"`{key.path}` is one of the server's own variables; choose another name.")
        elif written is None:
            entry.refuse_as_not("text")
        elif fault := _fault(written, True):
            entry.refuse(f"`{entry.path}` {fault}.")
        else:
            result[name] = written
    return result


def branch_name(value: Value) -> str | None:
    """A branch's short name, by the rules of git-check-ref-format(1)."""
    name = text()(value)
    if name is not None and (_BAD_BRANCH.search(name) or name.startswith("refs/")):
        value.refuse_as_not("the name of a branch, such as main")
        return None
    return name


def repository_path(value: Value) -> str | None:
    """A path inside the repository, `.` for its top. A slash at the end (a folder) is kept."""
    written = text()(value)
    if written is None:
        return None
    path = posixpath.normpath(written)
    parts = path.split("/")
    if (
        path.startswith("/")
        or ".." in parts
        or ".git" in (part.lower() for part in parts)
        or written.startswith("~")
    ):
        value.refuse_as_not("a path inside the repository, such as ./web")
        return None
    return f"{path}/" if written.endswith("/") and path != "." else path


def time_zone(value: Value) -> str | None:
    """An IANA time zone that this machine knows."""
    if value.scalar != "UTC" and value.scalar not in _zones():
        value.refuse_as_not("an IANA time zone, such as UTC or Europe/Berlin")
        return None
    return value.scalar


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def plain(value: Value) -> Any:
    """Any data as JSON knows it (dict, list, str, int, float, bool, None inside).

    Bounded by the loader's limits.
    """
    node = value.node
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in value.items()]
    if isinstance(node, yaml.MappingNode):
        result = {}
        for name, key, entry in Table(value).rest():
            if fault := _fault(name, False):
                key.refuse(f"The key `{key.path}` {fault}.")
            result[name] = plain(entry)
        return result
    written = value.scalar
    if written is None:
        return None
    if fault := _fault(written, True, limit=None):
        value.refuse(f"`{value.path}` {fault}.")
        return ""
    if node.tag == _INT and re.fullmatch(r"[+-]?\d{1,18}", written, re.ASCII):
        return int(written)
    if node.tag == _BOOL and written.lower() in ("true", "false"):
        return written.lower() == "true"
    if (
        node.tag == _FLOAT
        and re.fullmatch(r"[+-]?\d+\.\d*", written, re.ASCII)
        and math.isfinite(float(written))
    ):
        return float(written)
    return written


def _fault(written: str, lines: bool, limit: int | None = MAX_TEXT) -> str | None:
    """What makes text unusable as an argument, a variable or a row.

    A predicate without its full stop, or None.
    """
    most = limit if lines else MAX_LINE
    if most is not None and len(written) > most:
        return f"has {len(written):,} characters, and at most {most:,} are allowed"
    if "\0" in written:
        return "holds a NUL character, which no command or variable can carry; remove it"
    if any("\ud800" <= character <= "\udfff" for character in written):
        return "holds half a character (a lone surrogate); write the character itself"
    if not lines and any(ord(character) < 32 or 127 <= ord(character) < 160 for character in written):
        return "holds a line break or control character; write it on one line"
    return None
