"""The `command` runtime: any executable as an agent."""

from typing import Any

import pytest

from agents.runtimes.base import Credential, LaunchRefused
from agents.runtimes.command import AnyCommand, CommandParser
from tests.runtimes.conftest import MakeLaunch
from tests.runtimes.playing import play
from tests.runtimes.records import STDERR, Record, bodies, ended, fed, line, note

RUNTIME = AnyCommand()


def free(**entry: Any) -> dict[str, Any]:
    return {"level": "bubblewrap", "agent_config": entry}


@pytest.mark.needs_bubblewrap
def test_it_gets_the_prompt_works_in_the_copy_and_its_lines_are_text(make_launch: MakeLaunch) -> None:
    work = 'read prompt; echo "I was told: $prompt"; echo "$HUSKIES_STORY $1" > work.txt; echo "{}"; echo warned >&2; true'
    launch = make_launch(prompt="Do it.\n", **free(command=work, args=["a b; $(touch trap)"]))
    events, outcome = play(RUNTIME, launch)
    assert (outcome.kind, outcome.reason) == ("done", "The command ended with exit code 0.")
    assert [body["text"] for body in bodies(events, "text")] == ["I was told: Do it.", "{}"]
    assert bodies(events, "output")[0] == {"text": "warned", "stream": "stderr"}
    assert (launch.copy / "work.txt").read_text() == "7 a b; $(touch trap)\n"
    assert not (launch.copy / "trap").exists()


@pytest.mark.needs_bubblewrap
@pytest.mark.parametrize(
    ("command", "kind", "reason"),
    [
        ("echo no way >&2; exit 3", "crashed", "ended with exit code 3. It said: no way"),
        ("no-such-program-anywhere", "config", "was not found (exit code 127): correct its `command`"),
        ("kill -9 $$", "crashed", "by signal SIGKILL"),
    ],
)
def test_the_exit_code_decides(make_launch: MakeLaunch, command: str, kind: str, reason: str) -> None:
    _, outcome = play(RUNTIME, make_launch(**free(command=command)))
    assert outcome.kind == kind
    assert reason in outcome.reason


def test_a_list_is_run_as_it_stands(make_launch: MakeLaunch) -> None:
    command = RUNTIME.command(make_launch(**free(command=["agent", "--do"], args=["$HOME"])))
    assert command.argv == ["agent", "--do", "$HOME"]


def test_it_is_told_what_it_may_need_and_nothing_of_the_servers(
    make_launch: MakeLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "canary")
    key = Credential("api_key", "the-key", "https://gateway.example")
    command = RUNTIME.command(make_launch(credential=key, model="m-1", **free(command="x")))
    told = {name: value for name, value in command.env.items() if name.startswith("HUSKIES_")}
    assert told == {
        "HUSKIES_STORY": "7",
        "HUSKIES_BASE_BRANCH": "main",
        "HUSKIES_MODEL": "m-1",
        "HUSKIES_API_KEY": "the-key",
        "HUSKIES_BASE_URL": "https://gateway.example",
    }
    assert "canary" not in command.env.values()


def test_what_it_cannot_be_given_is_refused(make_launch: MakeLaunch) -> None:
    with pytest.raises(LaunchRefused, match="no `command`"):
        RUNTIME.command(make_launch(**free()))
    with pytest.raises(LaunchRefused, match="needs bubblewrap"):
        RUNTIME.command(make_launch(agent_config={"command": "x"}))
    with pytest.raises(LaunchRefused, match="no log-in of the host's"):
        RUNTIME.command(make_launch(credential=Credential("host_login"), **free(command="x")))


def test_it_has_begun_when_its_step_has() -> None:
    parser = CommandParser()
    assert [event.kind for event in parser.feed(note("step-start", step="copy"))] == ["note"]
    assert [event.kind for event in parser.feed(line(b"cloning"))] == ["output"]
    assert [event.kind for event in parser.feed(note("step-start", step="agent"))] == ["note", "started"]
    assert [event.kind for event in parser.feed(line(b"hello"))] == ["text"]


def test_a_command_that_the_runner_ended_is_judged_by_that() -> None:
    parser = CommandParser()
    fed(parser, [note("step-start", step="agent"), Record(STDERR, b"working")])
    assert parser.outcome(ended(None, outcome="silent")).kind == "hung"
    assert parser.outcome(None).kind == "lost"
    assert parser.outcome({"outcome": "spawn_failed"}).detail == "program"
    assert parser.outcome({"outcome": "step_failed", "step": "setup", "code": 127}).detail == "step"
