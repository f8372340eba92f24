"""The `claude-code` runtime: its command, its files, and the real program against the stand-in."""

import json
from pathlib import Path

import pytest

from agents.runtimes.base import Command, Credential, Decision, LaunchRefused
from agents.runtimes.claude_code import ClaudeCode
from agents.standin import StandIn
from tests.agent_programs import CLAUDE
from tests.runtimes.cases import CASES, Case
from tests.runtimes.conftest import MakeLaunch
from tests.runtimes.playing import play
from tests.runtimes.records import bodies

RUNTIME = ClaudeCode()


@pytest.fixture
def case() -> Case:
    return CASES[CLAUDE]


def options(command: Command) -> dict[str, str]:
    return dict(word.removeprefix("--").partition("=")[::2] for word in command.argv[2:])


def test_the_prompt_is_a_line_of_json(stand_in: Path, make_launch: MakeLaunch) -> None:
    command = RUNTIME.command(make_launch(prompt="--dangerously-skip-permissions; $(touch x)"))
    (line,) = command.stdin.splitlines()
    assert json.loads(line)["message"]["content"] == "--dangerously-skip-permissions; $(touch x)"
    assert command.keep_stdin and command.turn_ends, "the runner closes it when the turn is over"


def test_a_value_cannot_become_an_option(stand_in: Path, make_launch: MakeLaunch) -> None:
    command = RUNTIME.command(
        make_launch(agent_config={"system_prompt": "--permission-mode=bypassPermissions"})
    )
    assert all(word.startswith("--") or word == "-p" for word in command.argv[1:])
    assert options(command)["permission-mode"] == "acceptEdits"


def test_without_confinement_there_are_edits_only(stand_in: Path, make_launch: MakeLaunch) -> None:
    free, tied = (options(RUNTIME.command(make_launch(level=level))) for level in ("bubblewrap", "none"))
    assert (free["permission-mode"], "Bash" in free["tools"]) == ("bypassPermissions", True)
    assert (tied["permission-mode"], "Bash" in tied["tools"]) == ("acceptEdits", False)


@pytest.mark.parametrize("level", ["bubblewrap", "none"])
def test_where_it_is_to_ask_it_has_no_mode_and_asks_us(
    level: str, stand_in: Path, make_launch: MakeLaunch
) -> None:
    asks = options(RUNTIME.command(make_launch(level=level, agent_config={"permissions": "ask"})))
    assert asks["permission-prompt-tool"] == "stdio" and "permission-mode" not in asks
    free = options(RUNTIME.command(make_launch(level=level, agent_config={"permissions": "free"})))
    assert "permission-prompt-tool" not in free and "permission-mode" in free


def test_an_answer_is_the_programs_own_words() -> None:
    request = {"id": "r1", "tool": "Bash", "input": {"command": "masked"}, "text": "x"}
    allow = json.loads(RUNTIME.answer(request, Decision(allow=True)))["response"]
    assert allow == {"subtype": "success", "request_id": "r1", "response": {"behavior": "allow"}}
    deny = json.loads(RUNTIME.answer(request, Decision(allow=False, reason="Not\nhere.")))["response"]
    assert deny["response"] == {"behavior": "deny", "message": "Not\nhere."}


def test_the_environment_is_complete(stand_in: Path, make_launch: MakeLaunch) -> None:
    launch = make_launch(credential=Credential("oauth_token", "token", "https://gateway.example"))
    env = RUNTIME.command(launch).env
    assert (env["CLAUDE_CODE_OAUTH_TOKEN"], env["ANTHROPIC_BASE_URL"]) == ("token", "https://gateway.example")
    assert "ANTHROPIC_API_KEY" not in env
    assert (env["HOME"], env["CLAUDE_CONFIG_DIR"]) == (str(launch.home), str(launch.config))
    assert (env["GIT_AUTHOR_NAME"], env["GIT_COMMITTER_EMAIL"]) == (
        "huskies coder-1",
        "coder-1@huskies.invalid",
    )


def test_limits_and_tools_come_from_the_agents_entry(stand_in: Path, make_launch: MakeLaunch) -> None:
    config = {"max_turns": 9, "max_budget_usd": "1.50", "allowed_tools": ["Read", "Edit"], "model": "opus"}
    given = options(RUNTIME.command(make_launch(agent_config=config)))
    assert (given["max-turns"], given["max-budget-usd"], given["tools"]) == ("9", "1.50", "Read,Edit")
    assert (given["model"], options(RUNTIME.command(make_launch()))["model"]) == ("opus", "sonnet")
    config |= {"budget_left_usd": "0.75"}
    assert options(RUNTIME.command(make_launch(agent_config=config)))["max-budget-usd"] == "0.75"
    config = {"disallowed_tools": ["Bash(rm:*)", "W*"]}
    given = options(RUNTIME.command(make_launch(level="bubblewrap", agent_config=config)))
    assert (given["tools"], given["disallowedTools"]) == ("Bash,Read,Edit,Glob,Grep", "Bash(rm:*)")
    with pytest.raises(LaunchRefused, match="whole tools"):
        RUNTIME.command(make_launch(agent_config={"allowed_tools": ["Bash(git:*)"]}))


# ---------------------------------------------------------------- the real program


@pytest.mark.needs_claude
def test_edits_only_means_no_shell_and_nothing_outside(
    real: None, case: Case, make_launch: MakeLaunch, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.txt"
    turns = [
        {"write": {"path": str(outside), "content": "x"}},
        {"tool": "Read", "input": {"file_path": "/etc/passwd"}},
        {"write": {"path": "inside.txt", "content": "x"}},
        "Done.",
    ]
    with StandIn(turns) as fake:
        launch = make_launch(**{**case.against(fake), "level": "none"})
        events, outcome = play(RUNTIME, launch)
        assert "Bash" not in fake.requests("model")[0]["body"]["tools"][0]["name"]
    assert outcome.kind == "done"
    assert (outside.exists(), (launch.copy / "inside.txt").exists()) == (False, True)
    assert [body["error"] for body in bodies(events, "tool_end")] == [True, True, False]


@pytest.mark.needs_claude
@pytest.mark.needs_bubblewrap
def test_a_forbidden_command_is_denied_where_the_agent_is_free(
    real: None, case: Case, make_launch: MakeLaunch
) -> None:
    with StandIn([{"run": "git status"}, {"run": "echo fine"}, "Done."]) as fake:
        events, _ = play(RUNTIME, make_launch(**case.against(fake, disallowed_tools=["Bash(git:*)"])))
    assert [body["error"] for body in bodies(events, "tool_end")] == [True, False]


@pytest.mark.needs_claude
def test_the_real_program_names_a_conversation_that_is_not_there(
    real: None, case: Case, make_launch: MakeLaunch
) -> None:
    with StandIn([]) as fake:
        free = {**case.against(fake), "level": "none"}
        _, outcome = play(RUNTIME, make_launch(resume=True, **free))
        assert (outcome.kind, outcome.detail) == ("config", "conversation_missing")
        launch = make_launch(**free)
        play(RUNTIME, launch)
        _, outcome = play(RUNTIME, launch)
    assert (outcome.kind, outcome.detail) == ("config", "conversation_in_use")
