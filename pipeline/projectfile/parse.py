"""From the file's text to values, or to the list of everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import yaml

from pipeline.projectfile import fields
from pipeline.projectfile.fields import HOUR, MINUTE, SECOND, Command
from pipeline.projectfile.loader import load_nodes
from pipeline.projectfile.network import ON, network
from pipeline.projectfile.problems import Problem, ProjectFileError
from pipeline.projectfile.schema import (
    DONE_RETENTION,
    GATE_TIMEOUT,
    OUTPUT_LIMIT,
    QA_MODES,
    SETUP_TIMEOUT,
    Component,
    Gate,
    ProjectFile,
)
from pipeline.projectfile.sections import Section, SectionParser
from pipeline.projectfile.values import Reader, Table, Value

MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,127}"
LONGEST_RUN = timedelta(days=7)
LONGEST_RETENTION = timedelta(days=3650)
SMALLEST_OUTPUT, LARGEST_OUTPUT = 100_000, 10_000_000_000

_run_time = fields.duration(MINUTE, SECOND, LONGEST_RUN)
_output = fields.size(SMALLEST_OUTPUT, LARGEST_OUTPUT)
_paths = fields.many(fields.repository_path, expected="a path or a list of paths")
_command: Reader[Command] = fields.command
_commands: Reader[tuple[Command, ...]] = fields.many(_command, expected="a command or a list of commands")
_component_name = fields.text(
    pattern=r"[A-Za-z0-9][A-Za-z0-9._ -]{0,62}",
    expected="a name of letters, digits, dots, dashes (at most 63)",
)
model_name = fields.text(pattern=MODEL_NAME, expected="the name of a model, such as sonnet")


def parse(text: str, *, sections: Mapping[str, SectionParser]) -> ProjectFile:
    """The values of `.huskies/project.yaml`; `sections` reads the top-level keys of the floors above.

    A file without any key is the default. Raises ProjectFileError with all problems at once (a file that is
    no YAML has one: where it stops being YAML).
    """
    node = load_nodes(text)
    if node is None:
        return ProjectFile.default(sections)
    problems: list[Problem] = []
    root = Value(node, "", problems)
    if root.empty:
        return ProjectFile.default(sections)
    if not isinstance(node, yaml.MappingNode):
        root.refuse(f"The file is {root.shown()}, but must be a mapping of keys, such as `max_coders: 2`.")
        raise ProjectFileError(problems)
    table = Table(root)
    file = _project(table, sections)
    table.finish()
    if problems:
        raise ProjectFileError(problems)
    return file


def _project(table: Table, sections: Mapping[str, SectionParser]) -> ProjectFile:
    return ProjectFile(
        base_branch=table.read("base_branch", fields.branch_name, None),
        default_qa=table.read("default_qa", fields.one_of(QA_MODES), "server"),
        default_coder_model=table.read("default_coder_model", model_name, None),
        max_coders=table.read("max_coders", fields.integer(1, 1000), None),
        max_retries=table.read("max_retries", fields.integer(0, 100), 2),
        gate=table.read("gate", fields.table(_gate), None),
        components=table.read("components", _components, ()),
        setup_timeout=table.read("setup_timeout", _run_time, SETUP_TIMEOUT),
        done_retention=table.read(
            "done_retention", fields.duration(HOUR, timedelta(0), LONGEST_RETENTION), DONE_RETENTION
        ),
        output_limit=table.read("output_limit", _output, OUTPUT_LIMIT),
        timezone=table.read("timezone", fields.time_zone, "UTC"),
        rate_limit_notifications=table.read("rate_limit_notifications", fields.flag, False),
        sections={name: _section(table, name, parser) for name, parser in sections.items()},
    )


def _section(table: Table, name: str, parser: SectionParser) -> Section:
    return table.read(name, parser.parse, parser.default())


def _gate(table: Table) -> Gate:
    value = table.require("command")
    command = fields.command(value) if value else None
    return Gate(
        command=command or "",
        timeout=table.read("timeout", _run_time, GATE_TIMEOUT),
        script=table.read("script", _paths, None),
        env=table.read("env", fields.environment, {}),
        output_limit=table.read("output_limit", _output, OUTPUT_LIMIT),
        network=table.read("network", network, ON),
    )


def _component(table: Table) -> Component:
    name = table.require("name")
    return Component(
        name=(_component_name(name) if name else None) or "",
        path=table.read("path", fields.repository_path, ".").rstrip("/"),
        setup=table.read("setup", _commands, ()),
        teardown=table.read("teardown", _commands, ()),
        timeout=table.read("timeout", _run_time, None),
    )


def _components(value: Value) -> tuple[Component, ...] | None:
    components = fields.many(fields.table(_component), expected="a list of components", single=False)(value)
    refuse_repeated_names(value)
    return components


def refuse_repeated_names(value: Value) -> None:
    """Note a problem for each entry of a list of mappings whose `name` an earlier entry has."""
    lines: dict[str, int] = {}
    for item in value.items():
        pairs = item.node.value if isinstance(item.node, yaml.MappingNode) else []
        names = (
            Value(node, f"{item.path}.name", value.problems) for key, node in pairs if key.value == "name"
        )
        name = next(names, None)
        if name is None or name.scalar is None:
            continue
        if name.scalar in lines:
            first = lines[name.scalar]
            name.refuse(f"`{name.path}` is {name.shown()}, as is the name on line {first}; rename one.")
        lines.setdefault(name.scalar, name.node.start_mark.line + 1)
