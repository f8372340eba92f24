from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal

import pytest

from agents.agentfile import AgentEntry, agents_of, guess_role, url_fault
from pipeline.projectfile import ProjectFile, ProjectFileError, SectionParser, parse

WHOLE = """\
agents:
  - name: coder-1
    role: coder
    description: writes
    runtime: claude-code
    model: sonnet
    prompt: |
      Do {{story}}.
      Then stop.
    system_prompt: Be brief.
    allowed_tools: [Edit, "Bash(git:*)", mcp__server__tool]
    disallowed_tools: ScheduleWakeup
    max_turns: 50
    max_tool_turns: 40
    max_budget_usd: 2.50
    inactivity_timeout: 2
    max_session_time: 2h
    credential: team-key
    base_url: https://gateway.example/v1/
  - name: qa-other
    runtime: other-program
    command: [program, --serve]
    args: [--fast, -x]
  - name: demo
    runtime: scripted
    script:
      turns:
        - [{write: {path: a.txt, content: "on"}}, {exit: {code: 0, wait: 1.5, clean: true, note: null}}]
"""


def problems_of(text: str, sections: Mapping[str, SectionParser]) -> list[str]:
    with pytest.raises(ProjectFileError) as caught:
        parse(text, sections=sections)
    return [str(problem) for problem in caught.value.problems]


def test_every_key_of_an_agent_is_read(sections: Mapping[str, SectionParser]) -> None:
    coder, other, demo = agents_of(parse(WHOLE, sections=sections))
    assert coder == AgentEntry(
        name="coder-1",
        role="coder",
        description="writes",
        runtime="claude-code",
        model="sonnet",
        prompt="Do {{story}}.\nThen stop.\n",
        system_prompt="Be brief.",
        allowed_tools=("Edit", "Bash(git:*)", "mcp__server__tool"),
        disallowed_tools=("ScheduleWakeup",),
        max_turns=50,
        max_tool_turns=40,
        max_budget_usd=Decimal("2.50"),
        inactivity_timeout=timedelta(seconds=2),
        max_session_time=timedelta(hours=2),
        credential="team-key",
        base_url="https://gateway.example/v1",
    )
    assert (other.role, other.command, other.args) == ("qa", ("program", "--serve"), ("--fast", "-x"))
    assert demo.script == {
        "turns": [
            [
                {"write": {"path": "a.txt", "content": "on"}},
                {"exit": {"code": 0, "wait": 1.5, "clean": True, "note": None}},
            ]
        ]
    }


def test_project_without_agents_section_has_two_coders_and_one_for_qa(
    sections: Mapping[str, SectionParser],
) -> None:
    expected = [("coder-1", "coder"), ("coder-2", "coder"), ("qa", "qa")]
    for file in (
        parse("max_coders: 2", sections=sections),
        ProjectFile.default(sections),
        ProjectFile.default(),
    ):
        assert [(agent.name, agent.role) for agent in agents_of(file)] == expected
        assert {agent.runtime for agent in agents_of(file)} == {"claude-code"}
        assert {agent.inactivity_timeout for agent in agents_of(file)} == {timedelta(seconds=300)}


def test_empty_list_is_a_project_without_agents(sections: Mapping[str, SectionParser]) -> None:
    assert agents_of(parse("agents: []", sections=sections)) == ()


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("coder", "coder"),
        ("coder-opus", "coder"),
        ("qa", "qa"),
        ("qa-2", "qa"),
        ("mergemaster", "mergemaster"),
        ("merge-1", "mergemaster"),
        ("supervisor", "other"),
    ],
)
def test_role_is_guessed_from_the_name(name: str, role: str) -> None:
    assert guess_role(name) == role


@pytest.mark.parametrize(
    "line",
    [
        "role: boss",
        "runtime: nowhere",
        "model: --model",
        "prompt: ''",
        'prompt: "a\\0b"',
        "description: [a]",
        "allowed_tools: [--dangerous]",
        "allowed_tools: ['Bash(a,b)']",
        "allowed_tools: {Edit: true}",
        "disallowed_tools: ['']",
        "max_turns: 0",
        "max_tool_turns: -3",
        "max_budget_usd: 0",
        "max_budget_usd: -1",
        "max_budget_usd: .inf",
        "max_budget_usd: 1e3",
        "max_budget_usd: 0.00001",
        "inactivity_timeout: 0",
        "inactivity_timeout: forever",
        "max_session_time: 30d",
        "credential: a b",
        "credential: ../x",
        "base_url: http://example.com",
        "base_url: ftp://127.0.0.1/",
        "base_url: https://",
        "base_url: 5",
        "command: x",
        "args: [x]",
        "script: [x]",
        "env: {A: b}",
        "api_key: abc",
        "token: abc",
        "name: again",
        "modell: sonnet",
        "'': x",
        "model:",
    ],
)
def test_wrong_value_of_an_agent_is_one_sentence_with_its_line(
    line: str, sections: Mapping[str, SectionParser]
) -> None:
    (problem,) = problems_of(f"agents:\n  - name: coder-1\n    {line}\n", sections)
    assert problem.startswith(".huskies/project.yaml:3: ")
    assert problem.endswith((".", "?"))


@pytest.mark.parametrize("name", ["Coder", "-x", "a_b", "a" * 64, "a/b", "''", "[a]", "ä"])
def test_name_that_is_no_safe_word_is_refused(name: str, sections: Mapping[str, SectionParser]) -> None:
    (problem,) = problems_of(f"agents:\n  - name: {name}\n", sections)
    assert problem.startswith(".huskies/project.yaml:2: `agents[0].name` is ")


def test_two_agents_of_one_name_are_refused(sections: Mapping[str, SectionParser]) -> None:
    (problem,) = problems_of("agents:\n  - name: qa\n  - name: coder\n  - name: qa\n", sections)
    assert problem.startswith('.huskies/project.yaml:4: `agents[2].name` is "qa", as is the name on line 2')


def test_secret_in_the_file_is_not_repeated(sections: Mapping[str, SectionParser]) -> None:
    text = "agents:\n  - name: a\n    api_key: hunter2\n    base_url: https://me:hunter2@example.com\n"
    problems = problems_of(text, sections)
    assert len(problems) == 2
    assert "hunter2" not in "".join(problems)


def test_key_of_another_runtime_says_whose_it_is(sections: Mapping[str, SectionParser]) -> None:
    (problem,) = problems_of("agents:\n  - name: a\n    script: [x]\n", sections)
    assert "means nothing to the runtime claude-code: it is for the runtime scripted." in problem


def test_script_must_be_steps(sections: Mapping[str, SectionParser]) -> None:
    (problem,) = problems_of("agents:\n  - name: a\n    runtime: scripted\n    script: run.py\n", sections)
    assert "a list of steps or a mapping" in problem


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/v1",
        "https://[2001:db8::1]/",
        "http://localhost:4000",
        "http://127.0.0.1:1",
        "http://127.8.8.8",
        "http://[::1]:9/x",
    ],
)
def test_base_url_may_be_https_or_this_machine(url: str) -> None:
    assert url_fault(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://0.0.0.0",
        "http://2130706433",
        "http://[::ffff:8.8.8.8]",
        "https://user@example.com",
        "https://user:pw@example.com",
        "https://@example.com",
        "http://127.0.0.1@example.com",
        "https://example.com\\@127.0.0.1",
        "https://exa mple.com",
        "https://example.com/\n",
        "https://example.com?x=1",
        "https://example.com#x",
        "https://example.com:0",
        "https://example.com:99999",
        "https://example.com:x",
        "https://[::1",
        "https:///x",
        "https:example.com",
        "//example.com",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://ex\u00e4mple.com",
        "",
    ],
)
def test_any_other_base_url_is_refused_with_a_reason(url: str) -> None:
    assert url_fault(url)


def test_the_memory_of_an_agent_is_a_size() -> None:
    entry = AgentEntry("coder-1", "coder", max_memory=2 * 2**30)
    assert AgentEntry.from_json(entry.to_json()) == entry
