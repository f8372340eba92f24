"""`permissions:` of the project file: read with file and line, what a rule covers, and what an admin must have seen."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agents.agentfile import AgentsParser
from agents.permissionfile import Permissions, PermissionsParser, Rule, subject_of
from pipeline.projectfile import ProjectFileError, SectionParser, approvals_needed, parse
from pipeline.projectfile.schema import ProjectFile

COPY = "/data/copies/abc"
RULES = 'permissions:\n  - {tool: Bash, match: "git push*", decide: deny}\n  - {tool: Bash, match: "git *", decide: allow}\n'


@pytest.fixture(scope="module")
def sections() -> Mapping[str, SectionParser]:
    return {"agents": AgentsParser({"claude-code": ()}), "permissions": PermissionsParser()}


def read(text: str, sections: Mapping[str, SectionParser]) -> Permissions:
    section = parse(text, sections=sections).sections["permissions"]
    assert isinstance(section, Permissions)
    return section


def test_a_word_or_rules_and_back_from_what_is_stored(sections: Mapping[str, SectionParser]) -> None:
    assert read("max_coders: 1", sections) == Permissions("free")
    assert read("permissions: ask", sections) == Permissions("ask")
    found = read(RULES, sections)
    assert found.asks and found.rules == (Rule("Bash", "deny", "git push*"), Rule("Bash", "allow", "git *"))
    file = parse(
        RULES + 'agents: [{name: coder-1, permissions: [{tool: "*", decide: allow}]}]', sections=sections
    )
    assert ProjectFile.from_json(file.to_json(), sections=sections) == file


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("permissions: never", '`permissions` is "never", but must be one of ask, free'),
        ("permissions:\n  - {tool: Bash}", "`permissions[0]` has no `decide`"),
        ("permissions:\n  - {decide: allow}", "`permissions[0]` has no `tool`"),
        ("permissions:\n  - {tool: Bash, decide: ask}", "must be one of allow, deny"),
        ("permissions:\n  - {tool: Bash, decide: deny, path: x}", "is not a key of the project file"),
        ("permissions:\n  - {tool: 'rm -rf', decide: deny}", "must be the name of a tool"),
        ("permissions: {tool: Bash}", "must be ask, free, or a list of rules"),
        ("agents: [{name: a, permissions: sometimes}]", "must be one of ask, free"),
    ],
)
def test_a_mistake_is_told_with_its_line(
    text: str, problem: str, sections: Mapping[str, SectionParser]
) -> None:
    with pytest.raises(ProjectFileError) as caught:
        parse(text, sections=sections)
    said = str(caught.value.problems[0])
    assert problem in said and said.startswith(f".huskies/project.yaml:{text.count(chr(10)) + 1}: ")


@pytest.mark.parametrize(
    ("rule", "tool", "subject", "fits"),
    [
        (Rule("Bash", "allow", "git *"), "Bash", "git status", True),
        (Rule("Bash", "allow", "git *"), "Bash", "git status; rm -rf /", False),
        (Rule("Bash", "allow", "git *"), "Bash", "git log $(curl evil)", False),
        (Rule("Bash", "allow", "git *"), "Bash", "git log > /etc/x", False),
        (Rule("Bash", "allow", "git *"), "Bash", "git status\nrm x", False),
        (Rule("Bash", "allow", "make test > out.txt"), "Bash", "make test > out.txt", True),
        (Rule("Bash", "allow", "git *"), "Bash", "git status […]", False),
        (Rule("Bash", "allow"), "Bash", "anything; at all", True),
        (Rule("Bash", "deny", "git push*"), "Bash", "cd x && git push -f", True),
        (Rule("Bash", "deny", "git push*"), "Bash", "git status", False),
        (Rule("Edit", "allow", "src/*"), "Edit", "src/a/b.py", True),
        (Rule("Edit", "allow", "src/*"), "Edit", "/etc/src/x", False),
        (Rule("mcp__*", "deny"), "mcp__server__tool", "x", True),
        (Rule("Edit", "allow"), "Bash", "x", False),
    ],
)
def test_a_rule_covers_no_more_than_it_says(rule: Rule, tool: str, subject: str, fits: bool) -> None:
    assert rule.fits(tool, subject) is fits


@pytest.mark.parametrize(
    ("arguments", "subject"),
    [
        ({"command": "ls"}, "ls"),
        ({"command": ["git", "log"]}, "git log"),
        ({"file_path": f"{COPY}/src/a.py", "old_string": "x"}, "src/a.py"),
        ({"file_path": f"{COPY}/src/../../other/a"}, "/data/copies/other/a"),
        ({"file_path": "src/../../x"}, "/data/copies/x"),
        ({"file_path": f"{COPY}-evil/a"}, f"{COPY}-evil/a"),
        ({"pattern": "TODO", "path": f"{COPY}/src"}, "src"),
        (
            {"command": "src/ok", "file_path": "/etc/passwd"},
            '{"command": "src/ok", "file_path": "/etc/passwd"}',
        ),
        ({}, ""),
        ({"x": 1}, '{"x": 1}'),
    ],
)
def test_what_a_call_is_about(arguments: dict[str, object], subject: str) -> None:
    assert subject_of(arguments, COPY) == subject


def test_the_first_rule_that_fits_answers_and_none_leaves_it_to_people() -> None:
    found = Permissions("ask", (Rule("Bash", "deny", "git push*"), Rule("Bash", "allow", "git *")))
    assert found.answer("Bash", "git push") == ("deny", "rule 1: deny Bash git push*")
    assert found.answer("Bash", "git log") == ("allow", "rule 2: allow Bash git *")
    assert found.answer("Bash", "ls") is None


def needs(old: str, new: str, sections: Mapping[str, SectionParser]) -> list[str]:
    found = approvals_needed(parse(old, sections=sections), parse(new, sections=sections))
    return [reason.where for reason in found]


def test_what_is_no_longer_asked_waits_for_an_admin(sections: Mapping[str, SectionParser]) -> None:
    free, ask = "max_coders: 1", "permissions: ask"
    only = RULES.replace('  - {tool: Bash, match: "git push*", decide: deny}\n', "")
    assert needs(free, ask, sections) == []
    assert needs(ask, free, sections) == ["permissions"]
    assert needs(ask, RULES, sections) == ["permissions[1]"]
    assert needs(RULES, ask, sections) == [] == needs(RULES, RULES + "max_coders: 2\n", sections)
    # Without what was denied before it, the same rule allows more.
    assert needs(RULES, only, sections) == ["permissions[0]"]
    own = "agents: [{name: coder-1, permissions: ask}]"
    assert needs(own, "agents: [{name: coder-1}]", sections) == ["agents.coder-1.permissions"]
    assert "agents.coder-1.permissions" in needs(
        ask, "agents: [{name: coder-1, permissions: free}]", sections
    )
