"""What an admin must approve before a version of the project file is active.

A version that names a new command, base URL, credential or gate, or that loosens what people check, waits.
Everything else (limits, prompts, names, texts) is active at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.projectfile.gatefiles import gate_paths
from pipeline.projectfile.schema import ProjectFile, argv_of, command_label
from pipeline.projectfile.sections import Claim, ClaimKind, Guarding

SHOWN = 200  # characters of a command that a reason repeats


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a version waits.

    `where` is the key's path, `message` a sentence that names the old and the new value.
    """

    kind: ClaimKind | Literal["review", "base_branch"]
    where: str
    message: str


def approvals_needed(old: ProjectFile | None, new: ProjectFile) -> list[Reason]:
    """Why `new` must be approved before it replaces `old`, the active version (None: there was no file).

    Empty: it may be active at once.
    """
    before = list(_claims(old)) if old else []
    approved = {(claim.kind, claim.identity) for claim in before}
    labels = {(claim.kind, claim.where): claim.label for claim in before}
    reasons = []
    for claim in _claims(new):
        if (claim.kind, claim.identity) not in approved:
            reasons.append(
                Reason(claim.kind, claim.where, _sentence(claim, labels.get((claim.kind, claim.where))))
            )
    return reasons + (list(_loosened(old, new)) if old else [])


def _loosened(old: ProjectFile, new: ProjectFile) -> Iterator[Reason]:
    if old.gate and not new.gate:
        message = f"The gate is removed: `{_short(command_label(old.gate.command))}` would no longer run."
        yield Reason("gate", "gate", message)
    if old.gate and new.gate and old.gate.argv == new.gate.argv:
        # With another command the gate is approved as a whole, its files with it.
        if lost := sorted(set(gate_paths(old)) - set(gate_paths(new))):
            message = f"Changes of {_short(', '.join(lost))} by a story would no longer wait for an approval."
            yield Reason("gate", "gate.script", message)
    if old.gate and new.gate and new.gate.network.wider_than(old.gate.network):
        message = f"The gate's `network` changes from {old.gate.network.label} to {_short(new.gate.network.label)}: what it runs would reach more."
        yield Reason("gate", "gate.network", message)
    if old.default_qa == "human" and new.default_qa != "human":
        message = (
            f"`default_qa` changes from human to {new.default_qa}: no person would look before work lands."
        )
        yield Reason("review", "default_qa", message)
    if old.base_branch != new.base_branch and new.base_branch is not None:
        before = old.base_branch or "the repository's own"
        message = f"`base_branch` changes from {before} to {new.base_branch}: work would land there."
        yield Reason("base_branch", "base_branch", message)
    for name, section in new.sections.items():
        before_it = old.sections.get(name)
        if isinstance(section, Guarding) and before_it is not None:
            for where, message in section.loosened(before_it):
                yield Reason("review", where, message)


def _claims(file: ProjectFile) -> Iterator[Claim]:
    if file.gate:
        gate = file.gate
        environment = sorted(gate.env.items())
        label = command_label(gate.command)
        if environment:
            label += " with " + " ".join(f"{name}={value}" for name, value in environment)
        identity = json.dumps([gate.argv, environment])
        yield Claim("gate", "gate.command", identity, label)
    for component in file.components:
        for kind, commands in (("setup", component.setup), ("teardown", component.teardown)):
            for position, command in enumerate(commands):
                where = f"components.{component.name}.{kind}[{position}]"
                identity = json.dumps([kind, component.path, argv_of(command)])
                yield Claim("command", where, identity, f"{command_label(command)} (in {component.path})")
    for section in file.sections.values():
        yield from section.claims()


_NOUNS = {"command": "command", "base_url": "base URL", "credential": "credential", "gate": "gate"}


def _sentence(claim: Claim, before: str | None) -> str:
    noun, label = _NOUNS[claim.kind], _short(claim.label)
    if before is not None:
        return f"`{claim.where}` changes its {noun} from `{_short(before)}` to `{label}`."
    return f"`{claim.where}` names a new {noun}: `{label}`."


def _short(label: str) -> str:
    return label if len(label) <= SHOWN else f"{label[:SHOWN]}…"
