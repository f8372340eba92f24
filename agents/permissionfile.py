"""The `permissions:` of the project file, and of an agent's entry: whether agents ask before they act, and what rules answer by themselves.

`ask`, `free`, or a list of rules, which also means to ask. The first rule that fits answers; what none answers goes to people. A rule's
`match` is a glob on the command or path of the call (`subject_of`). Rules spare people questions; what confines an agent is the sandbox.
"""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from agents.runtimes.bounds import CUT
from pipeline.projectfile import Claim, Section, fields
from pipeline.projectfile.values import Table, Value

SECTION: Final = "permissions"
MODES: Final = ("ask", "free")
SUBJECTS: Final = ("command", "file_path", "notebook_path", "path", "url", "pattern", "query")
"""Arguments that say what a call is about, the first one that is there."""
# With one of these a line of shell is more than the one command that a glob was written for.
SHELL: Final = re.compile(r"[;&|<>`$(){}\n\r\\]")

_tool = fields.text(
    pattern=r"[A-Za-z*][\w.*-]{0,99}", expected="the name of a tool, such as Bash, Edit or mcp__*"
)
_match = fields.text(expected='a glob on the command or path, such as "git *" or "src/*"')


@dataclass(frozen=True, slots=True)
class Rule:
    tool: str
    decide: str
    match: str = "*"

    def __str__(self) -> str:
        return f"{self.decide} {self.tool}" + ("" if self.match == "*" else f" {self.match}")

    def fits(self, tool: str, subject: str) -> bool:
        """An allowing glob never covers a line of shell with more than one command in it, nor one that was cut short."""
        if not fnmatch.fnmatchcase(tool, self.tool):
            return False
        if self.match in ("*", subject):
            return self.decide == "deny" or not subject.endswith(CUT) or self.match == "*"
        if self.decide == "deny":
            return any(
                fnmatch.fnmatchcase(one.strip(), self.match) for one in (subject, *SHELL.split(subject))
            )
        if subject.endswith(CUT) or (SHELL.search(subject) and not SHELL.search(self.match)):
            return False
        return fnmatch.fnmatchcase(subject, self.match)


@dataclass(frozen=True, slots=True)
class Permissions:
    """`mode` is ask or free; with rules it is always ask."""

    mode: str = "free"
    rules: tuple[Rule, ...] = ()

    @property
    def asks(self) -> bool:
        return self.mode == "ask"

    def answer(self, tool: str, subject: str) -> tuple[Literal["allow", "deny"], str] | None:
        """The decision, and the rule that made it in words; None: people decide."""
        for number, rule in enumerate(self.rules, 1):
            if rule.fits(tool, subject):
                return ("allow" if rule.decide == "allow" else "deny"), f"rule {number}: {rule}"
        return None

    def to_json(self) -> Any:
        rules = [{"tool": rule.tool, "match": rule.match, "decide": rule.decide} for rule in self.rules]
        return {"mode": self.mode, "rules": rules}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Permissions:
        return cls(str(data.get("mode", "free")), tuple(Rule(**rule) for rule in data.get("rules", [])))

    def claims(self, where: str = SECTION) -> Iterator[Claim]:
        """What is allowed without asking: each such rule, together with what is denied before it."""
        before: list[list[str]] = []
        for position, rule in enumerate(self.rules):
            if rule.decide == "allow":
                identity = json.dumps(["permission", *before, [rule.tool, rule.match]])
                yield Claim("command", f"{where}[{position}]", identity, f"{rule} without asking")
            else:
                before.append([rule.tool, rule.match])

    def loosened(self, before: Section) -> Iterator[tuple[str, str]]:
        if isinstance(before, Permissions) and before.asks and not self.asks:
            yield SECTION, "`permissions` no longer asks: agents would act without anybody's answer."


class PermissionsParser:
    """Reads `permissions:`."""

    def default(self) -> Permissions:
        return Permissions()

    def parse(self, value: Value) -> Permissions | None:
        return permissions(value)

    def from_json(self, data: Any) -> Permissions:
        return Permissions.from_json(data)

    def proposal(self) -> str:
        """A comment: nothing is asked until someone wants it."""
        return (
            "# permissions: ask          # Agents ask before they change anything; or rules, the first that fits:\n"
            '# permissions: [{tool: Bash, match: "git push*", decide: deny}, {tool: Edit, decide: allow}]\n'
        )


def permissions(value: Value) -> Permissions | None:
    """`ask`, `free`, or a list of rules."""
    if value.scalar is not None:
        mode = fields.one_of(MODES)(value)
        return None if mode is None else Permissions(mode)
    rules = fields.many(fields.table(_rule), expected="ask, free, or a list of rules", single=False)(value)
    return None if rules is None else Permissions("ask", rules)


def _rule(table: Table) -> Rule:
    tool, decide = table.require("tool"), table.require("decide")
    return Rule(
        tool=(_tool(tool) if tool else None) or "*",
        decide=(fields.one_of(("allow", "deny"))(decide) if decide else None) or "deny",
        match=table.read("match", _match, "*"),
    )


def subject_of(arguments: Mapping[str, Any], copy: str) -> str:
    """What a call is about, for rules and people: its command, or its path as seen from the working copy `copy`; else all of it."""
    paths = [name for name in arguments if name.endswith("path")]
    # With a command and a path it could be about either: then no glob was written for it.
    for name in SUBJECTS if not (paths and "command" in arguments) else ():
        value = arguments.get(name)
        if isinstance(value, list) and name == "command":
            value = " ".join(map(str, value))
        if isinstance(value, str) and value:
            return within(value, copy) if name.endswith("path") else value
    return json.dumps(dict(arguments), ensure_ascii=False, sort_keys=True) if arguments else ""


def within(path: str, copy: str) -> str:
    """A path without its detours; relative where it lies in the copy, so that no `..` gets past a glob."""
    whole = posixpath.normpath(posixpath.join(copy, path))
    return whole.removeprefix(f"{copy}/") if whole.startswith(f"{copy}/") else whole
