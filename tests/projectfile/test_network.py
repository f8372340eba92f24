"""`network:` of an agent and of the gate: read with file and line, stored, widened only by an admin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agents.agentfile import AgentEntry, agents_of
from pipeline.projectfile import (
    ProjectFile,
    ProjectFileError,
    SectionParser,
    approvals_needed,
    gate_hash,
    parse,
)
from pipeline.projectfile.network import OFF, ON, Network

Sections = Mapping[str, SectionParser]

AGENT = "agents:\n  - name: coder-1\n"
GATE = "gate:\n  command: make test\n"


def of_agent(text: str, sections: Sections) -> Network:
    return agents_of(parse(f"{AGENT}    network: {text}\n", sections=sections))[0].network


def of_gate(text: str) -> Network:
    gate = parse(f"{GATE}  network: {text}\n", sections={}).gate
    assert gate is not None
    return gate.network


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on", ON),
        ("off", OFF),
        ('"off"', OFF),
        ("{allow: []}", Network("allow")),
        ("{allow: PyPI.org.}", Network("allow", ("pypi.org",))),
        (
            "{allow: [pypi.org, '*.example.com', 'example.com:8080', 10.0.0.7, 10.0.0.0/8, '[::1]:80', '::1']}",
            Network(
                "allow",
                (
                    "pypi.org",
                    "*.example.com",
                    "example.com:8080",
                    "10.0.0.7",
                    "10.0.0.0/8",
                    "[::1]:80",
                    "::1",
                ),
            ),
        ),
    ],
)
def test_both_read_it_alike(sections: Sections, text: str, expected: Network) -> None:
    assert of_agent(text, sections) == of_gate(text) == expected
    assert Network.from_json(expected.to_json()) == expected


def test_what_is_not_said_is_on(sections: Sections) -> None:
    file = parse(AGENT + GATE, sections=sections)
    assert agents_of(file)[0].network == ON and file.gate is not None and file.gate.network == ON


def test_rules_are_what_the_sidecar_takes() -> None:
    network = Network("allow", ("*.example.com", "example.com:8080", "10.0.0.0/8", "[::1]:80", "::1"))
    assert network.rules("provider.example") == [
        {"host": "*.example.com", "port": None},
        {"host": "example.com", "port": 8080},
        {"host": "10.0.0.0/8", "port": None},
        {"host": "::1", "port": 80},
        {"host": "::1", "port": None},
        {"host": "provider.example", "port": None},
    ]
    assert ON.rules() is None and OFF.rules() is None


@pytest.mark.parametrize(
    "host",
    [
        "https://pypi.org",
        "pypi.org/simple",
        "*",
        "*.*.com",
        "a b",
        "-x.com",
        "host:0",
        "host:70000",
        "10.0.0.256",
        "10.0.0.0/40",
        "exämple.com",
        "::zz",
        "''",
    ],
)
def test_a_host_that_is_none_is_refused_with_its_line(sections: Sections, host: str) -> None:
    for text, line, path in (
        (
            f"{AGENT}    network:\n      allow:\n        - pypi.org\n        - '{host}'\n"
            if host != "''"
            else f"{AGENT}    network: {{allow: [pypi.org,\n\n\n {host}]}}\n",
            6,
            "agents[0].network.allow[1]",
        ),
    ):
        with pytest.raises(ProjectFileError) as caught:
            parse(text, sections=sections)
        (problem,) = caught.value.problems
        assert (problem.line, problem.path) == (line, path)
        assert "must be a host such as pypi.org" in problem.message


@pytest.mark.parametrize("text", ["yes", "none", "[pypi.org]", "{allow: {a: b}}", "{alow: [a.com]}", "{}"])
def test_anything_else_is_refused(sections: Sections, text: str) -> None:
    for whole in (f"{AGENT}    network: {text}\n", f"{GATE}  network: {text}\n"):
        with pytest.raises(ProjectFileError) as caught:
            parse(whole, sections=sections)
        assert {problem.line for problem in caught.value.problems} == {3}


def test_the_rung_of_the_ladder_is_one_of_them(sections: Sections) -> None:
    assert agents_of(parse(f"{AGENT}    sandbox: limits\n", sections=sections))[0].sandbox == "limits"
    with pytest.raises(ProjectFileError, match="one of none, limits, bubblewrap"):
        parse(f"{AGENT}    sandbox: open\n", sections=sections)


@pytest.mark.parametrize(
    ("before", "after", "wider"),
    [
        (ON, OFF, False),
        (OFF, ON, True),
        (OFF, Network("allow", ("a.com",)), True),
        (OFF, Network("allow"), False),
        (Network("allow", ("a.com", "b.com")), Network("allow", ("b.com",)), False),
        (Network("allow", ("a.com",)), Network("allow", ("a.com", "c.com")), True),
        (Network("allow", ("a.com",)), ON, True),
        (ON, Network("allow", ("a.com",)), False),
    ],
)
def test_a_wider_network_waits_for_an_admin(
    sections: Sections, before: Network, after: Network, wider: bool
) -> None:
    def written(network: Network) -> ProjectFile:
        said: Any = network.to_json()
        return parse(f"{AGENT}    network: {said}\n{GATE}  network: {said}\n", sections=sections)

    needs = [reason.where for reason in approvals_needed(written(before), written(after))]
    assert needs == (["gate.network", "agents.coder-1.network"] if wider else [])


def test_less_confinement_waits_for_an_admin(sections: Sections) -> None:
    plain, less = (parse(AGENT + more, sections=sections) for more in ("", "    sandbox: none\n"))
    assert [reason.where for reason in approvals_needed(plain, less)] == ["agents.coder-1.sandbox"]
    assert approvals_needed(less, plain) == []


def test_a_verdict_counts_for_its_network_and_old_ones_stay_known() -> None:
    plain, on, off = (parse(GATE + more, sections={}) for more in ("", "  network: on\n", "  network: off\n"))
    assert gate_hash(plain) == gate_hash(on) != gate_hash(off)


def test_it_is_stored(sections: Sections) -> None:
    text = f"{AGENT}    network: {{allow: [a.com]}}\n    sandbox: limits\n{GATE}  network: off\n"
    file = parse(text, sections=sections)
    assert ProjectFile.from_json(file.to_json(), sections=sections) == file
    assert AgentEntry.from_json({"name": "x", "role": "coder"}).network == ON
