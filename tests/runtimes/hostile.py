"""What a program could print at worst: lines of any bytes, any JSON, messages made of a parser's own words, and recordings that are spoilt."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from hypothesis import strategies as st

from agents.runtimes import RUNTIMES
from agents.runtimes.ledger import MOST_COUNT
from tests.runtimes.records import SAMPLES, STDOUT, Record

FOLDERS = {
    "claude-code": "",
    "gemini-cli": "gemini",
    "openai-api": "api",
}  # where a runtime's recordings lie, if not under its name
BIGGEST = 64 * 1024
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{1,40}")


def recordings(runtime: str) -> dict[str, list[bytes]]:
    """Name -> lines, of what the real program printed; empty for a runtime without any."""
    folder = SAMPLES / FOLDERS.get(runtime, runtime)
    return {file.stem: file.read_bytes().splitlines() for file in sorted(folder.glob("*.jsonl"))}


@cache
def vocabulary(runtime: str) -> tuple[str, ...]:
    """Every word that the runtime's parser compares with: the strings of the modules that its class is made of."""
    modules = {sys.modules[kind.__module__] for kind in type(RUNTIMES[runtime].parser()).__mro__}
    ours = [module for module in modules if module.__name__.startswith("agents.runtimes")]
    found: set[str] = set()
    for module in ours:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value):
                found.add(node.value)
    return tuple(sorted(found))


odd: list[Any] = [
    None, True, False, 0, -1, 2**63, -(2**70), 10**300, 1.5e308, -0.0, "", "x", "\x00", "\ud800", "é" * 3, "a" * 20_000, "1e999", [], {},
    [[]], [None], [{}], {"": None}, [1, "a", {"b": []}], {"text": {"text": []}}, "2026-13-45T99:99:99Z", "-5", "9" * 4000,
]  # fmt: skip
anything = st.recursive(
    st.sampled_from(odd) | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)


def messages(runtime: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects whose keys and values are words of the parser's, in any arrangement."""
    words = st.sampled_from(vocabulary(runtime))
    values = st.recursive(
        words | st.sampled_from(odd),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=6),
        max_leaves=20,
    )
    return st.dictionaries(words, values, min_size=1, max_size=8)


@st.composite
def spoilt(draw: st.DrawFn, lines: list[bytes]) -> bytes:
    """A recorded line with one thing in it changed: a value or a key, a byte, or its end."""
    line = draw(st.sampled_from(lines))
    how = draw(st.sampled_from(("value", "value", "missing", "cut", "byte", "deep")))
    if how == "cut":
        return line[: draw(st.integers(0, len(line)))]
    if how == "byte":
        changed = bytearray(line)
        changed[draw(st.integers(0, len(line) - 1))] ^= draw(st.integers(1, 255))
        return bytes(changed)
    try:
        value = copy.deepcopy(json.loads(line))
    except ValueError:
        return line
    places = [(holder, key) for holder in holders(value) for key in keys(holder)]
    if not places:
        return line
    holder, key = draw(st.sampled_from(places))
    if how == "missing":
        del holder[key]
    elif how == "deep":
        holder[key] = json.loads("[" * 400 + "]" * 400)
    else:
        holder[key] = draw(st.sampled_from(odd) | anything)
    return json.dumps(value).encode()


def holders(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for one in value.values() if isinstance(value, dict) else value:
            yield from holders(one)


def keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


RAW = st.sampled_from(
    [b"", b" ", b"null", b"[]", b"{}", b"NaN", b'{"a": Infinity}', b'{"type": 1e999}', b"[" * 3000, b'{"a":' * 3000, b"\xff\xfe\x00", b'"\\ud800"',
     b'{"type": "\\ud800"}', b"9" * 5000, b'{"type":"x","n":' + b"9" * 5000 + b"}", b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}", b"{} {}"]
)  # fmt: skip


def lines(runtime: str) -> st.SearchStrategy[bytes]:
    recorded = [line for one in recordings(runtime).values() for line in one]
    made = RAW | st.binary(max_size=60) | anything.map(dumped) | messages(runtime).map(dumped)
    return made | spoilt(recorded) | st.sampled_from(recorded) if recorded else made


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def records(runtime: str) -> st.SearchStrategy[Record]:
    streams = st.sampled_from([STDOUT, STDOUT, STDOUT, STDOUT, 0, 2, 3, 4])
    return st.builds(Record, streams, lines(runtime), st.sampled_from([0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]))


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            assert isinstance(key, str)
            yield key
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)


def is_storable(value: Any) -> str:
    """The value as JSON that every database takes: no NUL, no half surrogates, no NaN, no number beyond 64 bits."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()
    assert not any("\x00" in one for one in strings(value))
    return text


def check(kind: str, body: dict[str, Any]) -> None:
    """An event's body is storable and small, and what it says of tokens and money is bookable."""
    assert len(is_storable(body).encode()) < BIGGEST, kind
    if kind == "usage":
        counts = [body[name] for name in ("input", "output", "cache_read", "cache_write", "thinking")]
        assert all(isinstance(count, int) and 0 <= count <= MOST_COUNT for count in counts)
        assert isinstance(body["request_id"], str) and isinstance(body["model"], str)
