"""The seam for parts of the file that belong to a floor above: who registers a section owns its keys.

A section's value tells by itself what it names (`claims`) and how it is stored (`to_json`), so that approvals
and rows work without knowing what a section is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from pipeline.projectfile.values import Value

ClaimKind = Literal["command", "base_url", "credential", "gate"]


@dataclass(frozen=True, slots=True)
class Claim:
    """Something in the file that an admin must have seen.

    `where` is the key's path. Two claims are the same thing when `kind` and `identity` are: an agent that
    uses a credential and a base URL in a combination already approved needs no second approval. `label` is
    for people.
    """

    kind: ClaimKind
    where: str
    identity: str
    label: str


class Section(Protocol):
    """A section's value: frozen, comparable."""

    def to_json(self) -> Any:
        """The value as JSON data."""

    def claims(self) -> Iterable[Claim]:
        """What in it needs an approval."""


@runtime_checkable
class Guarding(Protocol):
    """A section that can ask people before something happens."""

    def loosened(self, before: Section) -> Iterable[tuple[str, str]]:
        """What it no longer asks, compared with the active version: the key's path, and a sentence."""


class SectionParser(Protocol):
    """Reads one top-level key."""

    def default(self) -> Section:
        """The value when the file does not have the section."""

    def parse(self, value: Value) -> Section | None:
        """The value; None when problems were noted on `value`."""

    def from_json(self, data: Any) -> Section:
        """The reverse of `Section.to_json`."""

    def proposal(self) -> str:
        """The section as YAML text with comments, for a proposed file."""


_registered: dict[str, SectionParser] = {}


def register_section(name: str, parser: SectionParser) -> None:
    """Let `parser` own the top-level key `name`; a second registration replaces the first."""
    _registered[name] = parser


def registered_sections() -> Mapping[str, SectionParser]:
    """The sections that the floors above registered, by name."""
    return dict(_registered)
