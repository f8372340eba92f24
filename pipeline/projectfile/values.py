"""One value of the file with its place: what a field reads, and where a problem is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

import yaml

from pipeline.projectfile.problems import Problem

T = TypeVar("T")
D = TypeVar("D")

SHOWN = 60  # characters of a wrong value that a message repeats
MAX_UNKNOWN = 20  # unknown keys of one mapping that are told one by one
NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True)
class Value:
    """A YAML node, the path of the key it stands at, and the list that collects the whole file's problems."""

    node: yaml.Node
    path: str
    problems: list[Problem]

    def refuse(self, message: str) -> None:
        """Note a problem at this value; reading goes on, so that all problems are told at once."""
        mark = self.node.start_mark
        self.problems.append(Problem(mark.line + 1, mark.column + 1, self.path, message))

    def refuse_as_not(self, expected: str) -> None:
        """Note that the value is not what is expected.

        `expected` is a noun phrase such as `true or false`.
        """
        self.refuse(f"`{self.path}` is {self.shown()}, but must be {expected}.")

    def shown(self) -> str:
        """The value as a message names it."""
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping of keys"
        if self.empty:
            return "empty"
        return f'"{readable(self.node.value)}"'

    @property
    def empty(self) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == NULL

    @property
    def scalar(self) -> str | None:
        """The text as written, whatever YAML would have made of it (`on`, `1.0`, `12:30`), None if there is
        none."""
        return self.node.value if isinstance(self.node, yaml.ScalarNode) and not self.empty else None

    def items(self) -> Iterator[Value]:
        """The elements of a list, none for anything else."""
        if isinstance(self.node, yaml.SequenceNode):
            for position, node in enumerate(self.node.value):
                yield Value(node, f"{self.path}[{position}]", self.problems)


Reader = Callable[[Value], T | None]
"""Reads one value. None: a problem was noted."""


class Table:
    """A mapping whose keys are read one by one; `finish` refuses what nobody asked for."""

    def __init__(self, value: Value) -> None:
        self.value = value
        self._entries: dict[str, tuple[Value, Value]] = {}
        self._known: list[str] = []
        if not isinstance(value.node, yaml.MappingNode):
            value.refuse_as_not("a mapping of keys")
            return
        lines: dict[str, int] = {}
        for key_node, node in value.node.value:
            key = Value(key_node, value.path, value.problems)
            if key.scalar is None:
                key.refuse(f"A key is {key.shown()}, but must be a plain word.")
                continue
            name = key.scalar
            path = f"{value.path}.{readable(name)}" if value.path else readable(name)
            if name in lines:
                Value(key_node, path, value.problems).refuse(
                    f"`{path}` stands here a second time (first on line {lines[name]}); keep one."
                )
                continue
            lines[name] = key_node.start_mark.line + 1
            self._entries[name] = (Value(key_node, path, value.problems), Value(node, path, value.problems))

    def get(self, key: str) -> Value | None:
        """The value of a key, None if it is not there or (a problem) empty."""
        self._known.append(key)
        if key not in self._entries:
            return None
        value = self._entries[key][1]
        if value.empty:
            value.refuse(f"`{value.path}` is empty; give it a value or remove the key.")
            return None
        return value

    def read(self, key: str, reader: Reader[T], default: D) -> T | D:
        """The key's value as `reader` understands it, or `default` if it is not there or wrong."""
        value = self.get(key)
        result = reader(value) if value is not None else None
        return default if result is None else result

    def require(self, key: str) -> Value | None:
        """As `get`, and a problem if the key is not there."""
        if key not in self._entries and isinstance(self.value.node, yaml.MappingNode):
            where = f"`{self.value.path}`" if self.value.path else "The file"
            self.value.refuse(f"{where} has no `{key}`; add it.")
        return self.get(key)

    def forbid(self, key: str, message: str) -> None:
        """Refuse a key with a sentence of its own."""
        if key in self._entries:
            self._entries.pop(key)[0].refuse(message)

    def rest(self) -> Iterator[tuple[str, Value, Value]]:
        """The entries not yet asked for.

        Name, the key's place, the value. They count as known from here on.
        """
        for name, (key, value) in self._entries.items():
            if name not in self._known:
                self._known.append(name)
                yield name, key, value

    def finish(self) -> None:
        """Refuse unknown keys, each with the nearest known name."""
        known = list(self._known)
        for count, (name, key, _) in enumerate(self.rest()):
            if count == MAX_UNKNOWN:  # else a file of nonsense is answered by megabytes
                key.refuse("More keys follow here that are not keys of the project file.")
                return
            near = get_close_matches(name, known, n=1, cutoff=0.6)
            step = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}."
            key.refuse(f"`{key.path}` is not a key of the project file; {step}")


def readable(text: str) -> str:
    """Text as a message may repeat it: one line, printable, short."""
    shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:SHOWN])
    return shown if len(text) <= SHOWN else f"{shown}…"
