"""What a trial run proves, case by case; and that the sandbox's canary is a true one."""

from __future__ import annotations

from typing import Any

import pytest

from agents.runtimes import RUNTIMES
from agents.runtimes.base import Outcome
from agents.services import preflight_run
from agents.services.preflight_judging import HEARD, judge, within
from pipeline.processes.confine import Level
from tests.agent_programs import CODEX, AgentProgram, programs
from tests.agents.test_preflight import checked
from tests.agents.test_preflight import world as world  # a fixture here too
from tests.pipeline.worlds import World

CLAUDE = RUNTIMES["claude-code"]
DONE = Outcome("done", "The agent finished its turn.")
CONFINED = Level("bubblewrap", "")
GOOD: dict[str, Any] = {
    "found": {"version": "2.1.330", "logged_in": True, "remedy": ""},
    "asked": 3, "problems": [], "left": 0, "code": 0, "wrote": True, "ran": True, "read": False, "planted": False, "tried": True,
    "seconds": 1.5,
}  # fmt: skip


def verdict(
    outcome: Outcome = DONE, heard: tuple[str, ...] = HEARD, level: Level = CONFINED, **report: Any
) -> Any:
    events = [(kind, {"text": "hello"}) for kind in heard]
    return judge(CLAUDE, events, outcome, GOOD | report, {"outcome": "exited"}, level)


@pytest.mark.parametrize(
    ("version", "tested", "inside"),
    [
        ("2.1.330", ">=2.1.197,<2.2", True),
        ("2.1.100", ">=2.1.197,<2.2", False),
        ("3.0.0-beta.1", ">=2.1.197,<2.2", False),
        ("0.169.0-alpha.4", ">=0.169,<0.170", False),
        ("0.61.0-nightly.20261101.abcdef", ">=0.61,<0.62", True),
        ("2.1.330 (Claude Code)", ">=2.1.197,<2.2", True),
        ("main", ">=1", False),
    ],
)
def test_a_version_is_one_of_those_that_were_tested(version: str, tested: str, inside: bool) -> None:
    assert within(version, tested) is inside


def test_what_did_everything_that_it_was_told_is_fit() -> None:
    found = verdict()
    assert (found.state, found.reason, found.warning, found.seconds) == ("fit", "", "", 1.5)
    assert found.proved == {"flags": True, "parser": True, "sandbox": True} and found.logged_in is True


def test_a_program_that_did_not_try_the_sandbox_has_not_proved_it() -> None:
    found = verdict(tried=False)
    assert (found.state, found.proved["sandbox"]) == ("fit", False)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"read": True}, "The sandbox did not hold: it read a file of the server's."),
        ({"planted": True}, "The sandbox did not hold: it wrote a file outside of its working copy."),
        ({"wrote": False}, "the file that it was told to write is not in its working copy"),
        ({"ran": False}, "the command that it was told to run did not run"),
        ({"heard": ("started", "text", "ended")}, "nothing was heard of tool_start, tool_end, usage"),
        (
            {"outcome": Outcome("hung", "It was silent.")},
            "did not come to an end in time. It had asked its provider.",
        ),
        ({"outcome": Outcome("wall_limit", "x"), "asked": 0}, "It asked its provider nothing."),
        ({"outcome": Outcome("config", "The key was refused.")}, "The key was refused."),
        (
            {"outcome": Outcome("crashed", "It died."), "problems": ["the client offers no Bash tool"]},
            "It died. The stand-in could not go on: the client offers no Bash tool.",
        ),
    ],
)
def test_each_fault_has_its_words_and_a_remedy(case: dict[str, Any], said: str) -> None:
    found = verdict(**case)
    assert (
        found.state == "unfit" and said in found.reason and found.remedy.endswith(("check`.", "report it."))
    )


def test_a_run_that_does_not_end_is_told_with_what_the_program_said_last() -> None:
    found = verdict(Outcome("wall_limit", "x"), heard=("output",), asked=0)
    assert found.reason.endswith("It asked its provider nothing. It said: hello")


def test_an_unknown_version_and_a_missing_sandbox_are_warnings() -> None:
    found = verdict(
        level=Level("none", "It is not installed."),
        ran=False,
        found={"version": None, "remedy": "Install it again."},
    )
    assert found.state == "fit"
    assert found.warning.startswith(
        "Its version is not known. Install it again. Without bubblewrap it is kept to edits"
    )


def test_a_trial_that_did_not_begin_says_nothing_of_the_program() -> None:
    gone = {"outcome": "step_failed", "step": "copy", "code": 128}
    found = judge(CLAUDE, [], Outcome("config", "x"), {}, gone, CONFINED)
    assert (found.state, found.reason) == (
        "unknown", "The check itself could not be made (step copy: step_failed, exit 128).",
    )  # fmt: skip


@programs(CODEX)
def test_a_sandbox_with_a_hole_is_found_by_the_canary(
    program: AgentProgram, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(program.variable, str(program.find()))
    monkeypatch.setattr(preflight_run.confine, "confined", lambda argv, **_place: list(argv))
    row = checked(world, "codex")
    assert row.state == "unfit" and not row.proved["sandbox"] and row.proved["parser"]
    assert "it read a file of the server's and wrote a file outside of its working copy" in row.reason
