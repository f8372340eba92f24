from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from pipeline.projectfile import ProjectFile, SectionParser, gate_hash, parse

WHOLE = """\
base_branch: trunk
max_coders: 2
gate: {command: [make, test], timeout: 7m, script: [ci], env: {A: b}, output_limit: 1MB}
components: [{name: web, path: web, setup: [a, [b, c]], teardown: d, timeout: 3m}]
agents:
  - {name: coder-1, max_budget_usd: 2.50, max_session_time: 2h, allowed_tools: [Edit], inactivity_timeout: 9}
  - {name: x, runtime: other-program, command: [p, q], args: [r]}
  - {name: y, runtime: other-program, command: p q}
  - {name: z, runtime: scripted, script: {turns: [[{exit: {code: 3}}]]}}
"""


@pytest.mark.parametrize("text", ["", "agents: []", WHOLE])
def test_stored_file_is_read_back_the_same(text: str, sections: Mapping[str, SectionParser]) -> None:
    file = parse(text, sections=sections)
    stored = json.loads(json.dumps(file.to_json()))
    assert ProjectFile.from_json(stored, sections=sections) == file


def test_row_of_an_older_version_gets_the_defaults_of_new_keys(sections: Mapping[str, SectionParser]) -> None:
    assert ProjectFile.from_json({}, sections=sections) == ProjectFile.default(sections)
    old = {
        "gate": {"command": "x"},
        "components": [{"name": "a"}],
        "sections": {"agents": [{"name": "c", "role": "qa"}]},
    }
    read = ProjectFile.from_json(old, sections=sections)
    assert read == parse(
        "gate: {command: x}\ncomponents: [{name: a}]\nagents: [{name: c, role: qa}]", sections=sections
    )


def test_section_of_an_app_that_is_gone_is_dropped(sections: Mapping[str, SectionParser]) -> None:
    stored = parse(WHOLE, sections=sections).to_json()
    assert ProjectFile.from_json(stored, sections={}).sections == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[make, test]", "make test"),
        ("{A: b}", "{A: c}"),
        ("path: web", "path: api"),
        ("[a, [b, c]]", "[[b, c], a]"),
    ],
)
def test_gate_hash_changes_with_what_decides_a_verdict(
    old: str, new: str, sections: Mapping[str, SectionParser]
) -> None:
    assert old in WHOLE
    before, after = (parse(text, sections=sections) for text in (WHOLE, WHOLE.replace(old, new)))
    assert gate_hash(before) != gate_hash(after)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("7m", "8m"),
        ("1MB", "2MB"),
        ("script: [ci]", "script: []"),
        ("teardown: d", "teardown: e"),
        ("trunk", "main"),
    ],
)
def test_gate_hash_stays_with_everything_else(
    old: str, new: str, sections: Mapping[str, SectionParser]
) -> None:
    assert old in WHOLE
    before, after = (parse(text, sections=sections) for text in (WHOLE, WHOLE.replace(old, new)))
    assert gate_hash(before) == gate_hash(after)


def test_gate_hash_tells_no_gate_from_any_gate() -> None:
    assert gate_hash(parse("", sections={})) != gate_hash(parse("gate: {command: 'true'}", sections={}))
