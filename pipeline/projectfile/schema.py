"""The project file as values: what a project may set, with its defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from pipeline.projectfile.fields import Command
from pipeline.projectfile.network import ON, Network
from pipeline.projectfile.sections import Section, SectionParser

QA_MODES: Final = ("server", "human", "agent")
GATE_TIMEOUT: Final = timedelta(minutes=20)
SETUP_TIMEOUT: Final = timedelta(minutes=20)
DONE_RETENTION: Final = timedelta(hours=4)
OUTPUT_LIMIT: Final = 50_000_000  # bytes


@dataclass(frozen=True, slots=True)
class Gate:
    """The command that decides whether a story's work is accepted.

    `script`: paths in the repository whose change by a story waits for approval. None = those that the
    command's tool implies (see `gatefiles`); a slash at the end = a folder. `output_limit` is in bytes. `network`
    is what the command may reach, and the components' setup in the gate's copy.
    """

    command: Command
    timeout: timedelta = GATE_TIMEOUT
    script: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    output_limit: int = OUTPUT_LIMIT
    network: Network = ON

    @property
    def argv(self) -> tuple[str, ...]:
        return argv_of(self.command)


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the repository.

    `setup` runs in `path` of each new copy, in order; `teardown` before its removal.
    """

    name: str
    path: str = "."
    setup: tuple[Command, ...] = ()
    teardown: tuple[Command, ...] = ()
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """One version of the file.

    None for a limit = no limit; `max_retries` 0 = unlimited (both as in the seed).
    """

    base_branch: str | None = None
    default_qa: str = "server"
    default_coder_model: str | None = None
    max_coders: int | None = None
    max_retries: int = 2
    gate: Gate | None = None
    components: tuple[Component, ...] = ()
    setup_timeout: timedelta = SETUP_TIMEOUT
    done_retention: timedelta = DONE_RETENTION
    output_limit: int = OUTPUT_LIMIT
    timezone: str = "UTC"
    rate_limit_notifications: bool = False
    sections: Mapping[str, Section] = field(default_factory=dict)

    @classmethod
    def default(cls, sections: Mapping[str, SectionParser] | None = None) -> ProjectFile:
        """What holds for a project without the file: no gate, so that people do the QA."""
        return cls(sections={name: parser.default() for name, parser in (sections or {}).items()})

    def to_json(self) -> dict[str, Any]:
        """JSON data: times in seconds, sizes in bytes."""
        return {
            "base_branch": self.base_branch,
            "default_qa": self.default_qa,
            "default_coder_model": self.default_coder_model,
            "max_coders": self.max_coders,
            "max_retries": self.max_retries,
            "gate": _gate_to_json(self.gate) if self.gate else None,
            "components": [_component_to_json(component) for component in self.components],
            "setup_timeout": self.setup_timeout.total_seconds(),
            "done_retention": self.done_retention.total_seconds(),
            "output_limit": self.output_limit,
            "timezone": self.timezone,
            "rate_limit_notifications": self.rate_limit_notifications,
            "sections": {name: section.to_json() for name, section in self.sections.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, sections: Mapping[str, SectionParser]) -> ProjectFile:
        """The reverse of `to_json`.

        A section stored by an app that is gone is dropped, a new one gets its default.
        """
        default = cls.default(sections)
        stored = data.get("sections", {})
        values = {name: parser.from_json(stored[name]) for name, parser in sections.items() if name in stored}
        return cls(
            base_branch=data.get("base_branch"),
            default_qa=data.get("default_qa", default.default_qa),
            default_coder_model=data.get("default_coder_model"),
            max_coders=data.get("max_coders"),
            max_retries=data.get("max_retries", default.max_retries),
            gate=_gate_from_json(data["gate"]) if data.get("gate") else None,
            components=tuple(_component_from_json(component) for component in data.get("components", [])),
            setup_timeout=_seconds(data, "setup_timeout", SETUP_TIMEOUT),
            done_retention=_seconds(data, "done_retention", DONE_RETENTION),
            output_limit=data.get("output_limit", OUTPUT_LIMIT),
            timezone=data.get("timezone", default.timezone),
            rate_limit_notifications=data.get("rate_limit_notifications", False),
            sections={**default.sections, **values},
        )


def argv_of(command: Command) -> tuple[str, ...]:
    """The program and its arguments; a line is run by `sh -c`."""
    return ("sh", "-c", command) if isinstance(command, str) else command


def command_label(command: Command) -> str:
    """The command as people read it."""
    return command if isinstance(command, str) else json.dumps(list(command), ensure_ascii=False)


def gate_hash(file: ProjectFile) -> str:
    """SHA-256 (64 hex digits) over what decides a verdict: the gate's command and environment, all setups.

    Time-outs, output limits and who must approve a change are left out: they do not change what a pass means.
    """
    gate = file.gate
    meaning = {
        "command": list(gate.argv) if gate else None,
        "env": sorted(gate.env.items()) if gate else [],
        **({"network": gate.network.to_json()} if gate and not gate.network.is_on else {}),
        "setup": [
            [component.path, [argv_of(step) for step in component.setup]] for component in file.components
        ],
    }
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()


def _gate_to_json(gate: Gate) -> dict[str, Any]:
    return {
        "command": command_to_json(gate.command),
        "timeout": gate.timeout.total_seconds(),
        "script": None if gate.script is None else list(gate.script),
        "env": dict(gate.env),
        "output_limit": gate.output_limit,
        "network": gate.network.to_json(),
    }


def _gate_from_json(data: Mapping[str, Any]) -> Gate:
    return Gate(
        command=command_from_json(data["command"]),
        timeout=_seconds(data, "timeout", GATE_TIMEOUT),
        script=None if data.get("script") is None else tuple(data["script"]),
        env=dict(data.get("env", {})),
        output_limit=data.get("output_limit", OUTPUT_LIMIT),
        network=Network.from_json(data.get("network")),
    )


def _component_to_json(component: Component) -> dict[str, Any]:
    return {
        "name": component.name,
        "path": component.path,
        "setup": [command_to_json(step) for step in component.setup],
        "teardown": [command_to_json(step) for step in component.teardown],
        "timeout": component.timeout.total_seconds() if component.timeout else None,
    }


def _component_from_json(data: Mapping[str, Any]) -> Component:
    return Component(
        name=data["name"],
        path=data.get("path", "."),
        setup=tuple(command_from_json(step) for step in data.get("setup", [])),
        teardown=tuple(command_from_json(step) for step in data.get("teardown", [])),
        timeout=timedelta(seconds=data["timeout"]) if data.get("timeout") else None,
    )


def command_to_json(command: Command) -> str | list[str]:
    """A string or a list of strings."""
    return command if isinstance(command, str) else list(command)


def command_from_json(data: str | list[str]) -> Command:
    """The reverse of `command_to_json`."""
    return data if isinstance(data, str) else tuple(data)


def _seconds(data: Mapping[str, Any], key: str, default: timedelta) -> timedelta:
    return timedelta(seconds=data[key]) if key in data else default
