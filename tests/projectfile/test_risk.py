from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipeline.projectfile import ProjectFile, SectionParser, approvals_needed, parse

BASE = """\
gate: {command: make test, env: {CI: "1"}}
components:
  - {name: web, path: web, setup: [npm ci], teardown: [npm run stop]}
agents:
  - {name: coder-1, credential: team, base_url: "https://gateway.example"}
  - {name: other, runtime: other-program, command: run-it, args: [-v]}
  - {name: demo, runtime: scripted, script: [{say: hello}]}
"""


def kinds(old: str | None, new: str, sections: Mapping[str, SectionParser]) -> list[tuple[str, str]]:
    before = None if old is None else parse(old, sections=sections)
    reasons = approvals_needed(before, parse(new, sections=sections))
    assert all(reason.message.endswith(".") for reason in reasons)
    return [(reason.kind, reason.where) for reason in reasons]


def test_default_needs_no_approval(sections: Mapping[str, SectionParser]) -> None:
    assert approvals_needed(None, ProjectFile.default(sections)) == []
    assert approvals_needed(ProjectFile.default(), ProjectFile.default(sections)) == []


def test_first_version_with_commands_names_each_of_them(sections: Mapping[str, SectionParser]) -> None:
    expected = [
        ("gate", "gate.command"),
        ("command", "components.web.setup[0]"),
        ("command", "components.web.teardown[0]"),
        ("credential", "agents.coder-1.credential"),
        ("base_url", "agents.coder-1.base_url"),
        ("command", "agents.other.command"),
        ("command", "agents.demo.script"),
    ]
    assert kinds(None, BASE, sections) == expected
    assert kinds("", BASE, sections) == expected


def test_same_version_needs_no_approval(sections: Mapping[str, SectionParser]) -> None:
    assert kinds(BASE, BASE, sections) == []


@pytest.mark.parametrize(
    "new",
    [
        "max_coders: 3\nmax_retries: 9\ndefault_qa: human\n" + BASE,
        BASE.replace("env: {CI", "timeout: 5m, env: {CI"),
        BASE.replace("name: web,", "name: frontend,"),
        BASE.replace("name: coder-1,", "name: coder-1, prompt: Hello, model: opus, max_turns: 7,"),
        BASE + '  - {name: coder-2, credential: team, base_url: "https://gateway.example"}\n',
        BASE + "  - {name: coder-3}\n",
        BASE.replace(
            "{command: make test,", "{command: make test, script: [Makefile, makefile, GNUmakefile, ci/],"
        ),
    ],
    ids=["limits", "time-out", "renamed", "prompt", "known-credential", "plain-agent", "more-guarded"],
)
def test_harmless_change_is_active_at_once(new: str, sections: Mapping[str, SectionParser]) -> None:
    assert kinds(BASE, new, sections) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("command: make test", "command: 'true'", ("gate", "gate.command")),
        ('CI: "1"', 'CI: "0"', ("gate", "gate.command")),
        ("[npm ci]", "[npm ci, curl x]", ("command", "components.web.setup[1]")),
        ("[npm ci]", "[[npm, ci]]", ("command", "components.web.setup[0]")),
        ("path: web", "path: api", ("command", "components.web.setup[0]")),
        ("npm run stop", "npm run halt", ("command", "components.web.teardown[0]")),
        ("credential: team", "credential: boss", ("credential", "agents.coder-1.credential")),
        ("gateway.example", "evil.example", ("base_url", "agents.coder-1.base_url")),
        ("command: run-it", "command: run-that", ("command", "agents.other.command")),
        ("args: [-v]", "args: [-v, -w]", ("command", "agents.other.command")),
        ("say: hello", "run: id", ("command", "agents.demo.script")),
        (", script: [{say: hello}]", "", ("command", "agents.demo.runtime")),
        ('gate: {command: make test, env: {CI: "1"}}', "", ("gate", "gate")),
        ("command: make test,", "command: make test, script: [],", ("gate", "gate.script")),
    ],
)
def test_risky_change_waits(
    old: str, new: str, expected: tuple[str, str], sections: Mapping[str, SectionParser]
) -> None:
    assert old in BASE
    assert expected in kinds(BASE, BASE.replace(old, new), sections)


def test_known_address_with_another_credential_waits(sections: Mapping[str, SectionParser]) -> None:
    old = BASE + "  - {name: coder-2, credential: private}\n"
    new = BASE + '  - {name: coder-2, credential: private, base_url: "https://gateway.example"}\n'
    assert kinds(old, new, sections) == [("base_url", "agents.coder-2.base_url")]


def test_less_review_and_another_branch_wait(sections: Mapping[str, SectionParser]) -> None:
    assert kinds("default_qa: human", "default_qa: server", sections) == [("review", "default_qa")]
    assert kinds("default_qa: server", "default_qa: human", sections) == []
    assert kinds("base_branch: main", "base_branch: trunk", sections) == [("base_branch", "base_branch")]


def test_sentence_names_the_old_and_the_new_command(sections: Mapping[str, SectionParser]) -> None:
    old, new = (parse(text, sections=sections) for text in ("gate: {command: a}", "gate: {command: b}"))
    assert [reason.message for reason in approvals_needed(old, new)] == [
        "`gate.command` changes its gate from `a` to `b`."
    ]
    assert [reason.message for reason in approvals_needed(None, new)] == [
        "`gate.command` names a new gate: `b`."
    ]
