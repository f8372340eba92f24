"""The real agent programs against the stand-in: what each runtime's command and parser make of them."""

import json
import subprocess
from typing import Any

import pytest

from agents.runtimes.base import Event
from agents.standin import StandIn
from tests.agent_programs import CLAUDE, CODEX, GEMINI, OPENCODE, QWEN, AgentProgram, marks_of, programs
from tests.runtimes.cases import CASES, Case
from tests.runtimes.conftest import MakeLaunch
from tests.runtimes.playing import play
from tests.runtimes.records import bodies

USAGE = {"input": 1000, "output": 100}


@pytest.fixture
def case(program: AgentProgram) -> Case:
    return CASES[program]


def counted(events: list[Event]) -> list[tuple[int, int]]:
    return [(body["input"], body["output"]) for body in bodies(events, "usage") if body["input"]]


@programs(CLAUDE, CODEX, GEMINI, QWEN, long=[OPENCODE])
def test_it_edits_commits_and_goes_on_in_another_copy(
    real: None, case: Case, make_launch: MakeLaunch
) -> None:
    turns = [
        {"run": "echo hi > a.txt && git add -A && git commit -qm first", "usage": USAGE},
        {"text": "Done.", "usage": USAGE},
        {"write": {"path": "b.txt", "content": "x\n"}, "match": "It failed", "usage": USAGE},
        {"text": "Done again.", "usage": USAGE},
    ]
    with StandIn(turns) as standin:
        first = make_launch("one", **case.against(standin, system_prompt="-Be brief."))
        events, outcome = play(case.runtime, first)
        assert (outcome.kind, standin.problems) == ("done", [])
        check_books(case, events)
        told = json.dumps(standin.requests("model")[0]["body"])
        assert "-Be brief." in told and "Do the story." in told
        log = ["git", "log", "-1", "--format=%an %s"]
        done = subprocess.run(log, cwd=first.copy, capture_output=True, text=True, check=True)
        assert done.stdout == "huskies coder-1 first\n"

        second = make_launch(
            "two",
            resume=True,
            prompt="It failed.",
            conversation=first.conversation,
            **case.against(standin),
        )
        carried = case.runtime.carry(first.config, second)
        assert carried != []
        events, outcome = play(case.runtime, second, carried)
        assert (outcome.kind, standin.problems, standin.left()) == ("done", [], 0)
        check_books(case, events)
        resumed = json.dumps(standin.requests("model")[2]["body"])
        assert "Do the story." in resumed and "It failed." in resumed
        assert (second.copy / "b.txt").read_text() == "x\n"


def check_books(case: Case, events: list[Event]) -> None:
    """Each request once, although some programs' own sums count the whole conversation."""
    usage, (end,) = bodies(events, "usage"), bodies(events, "ended")
    assert [sum(body[kind] for body in usage) for kind in ("input", "output")] == [2000, 200]
    if case.program == CLAUDE:
        ours = sum(float(body["cost_usd"]) for body in usage)
        assert ours == pytest.approx(end["program_run_cost_usd"])
    else:
        assert counted(events) == [(1000, 100)] * 2


@programs(CLAUDE, CODEX, GEMINI, long=[QWEN, OPENCODE])
def test_it_heeds_no_settings_of_the_repository_and_hands_out_no_key(
    real: None, case: Case, make_launch: MakeLaunch
) -> None:
    with StandIn([{"run": "env > seen.txt", "usage": USAGE}, "Done."]) as standin:
        launch = make_launch(**case.against(standin))
        case.plant(launch.copy)
        _, outcome = play(case.runtime, launch)
        assert (outcome.kind, standin.left()) == ("done", 0)
    seen = (launch.copy / "seen.txt").read_text()
    assert f"HOME={launch.home}" in seen
    assert not (launch.copy / "trap").exists()
    # The others hand all of their environment on.
    assert ("dummy-key" in seen) == (case.program in (CLAUDE, QWEN, OPENCODE))


SLOW = {(QWEN, "429")}
FAILURES = [
    pytest.param(
        program,
        turn,
        kind,
        id=f"{program.runtime}-{name}",
        marks=marks_of(program, program == OPENCODE or (program, name) in SLOW),
    )
    for program, one in CASES.items()
    for name, (turn, kind) in one.failures.items()
]


@pytest.mark.parametrize(("program", "turn", "kind"), FAILURES)
def test_its_failures_have_their_names(
    real: None, case: Case, make_launch: MakeLaunch, turn: dict[str, Any], kind: str
) -> None:
    with StandIn([turn | {"repeat": 99}]) as standin:
        _, outcome = play(case.runtime, make_launch(**case.against(standin)))
    assert outcome.kind == kind, outcome.reason


@programs(CLAUDE, CODEX, long=[QWEN, OPENCODE])
def test_it_survives_a_stream_that_breaks(real: None, case: Case, make_launch: MakeLaunch) -> None:
    with StandIn([{"text": "some words", "drop": True}, "after"]) as standin:
        events, outcome = play(case.runtime, make_launch(**case.against(standin)))
        assert (outcome.kind, standin.left()) == ("done", 0)
    # opencode does not always tell that it did.
    assert len(bodies(events, "retry")) == 1 or case.program == OPENCODE


@programs(CLAUDE, CODEX, GEMINI, long=[QWEN])
def test_it_names_a_conversation_that_is_not_there(real: None, case: Case, make_launch: MakeLaunch) -> None:
    with StandIn([]) as standin:
        _, outcome = play(case.runtime, make_launch(resume=True, **case.against(standin)))
    assert (outcome.kind, outcome.detail) == ("config", "conversation_missing")
