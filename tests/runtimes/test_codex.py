"""The `codex` runtime: its command, its files, and the real program against the stand-in."""

import json
from pathlib import Path

import pytest

from agents.runtimes.base import Command, Credential, Decision, Event
from agents.runtimes.codex import KEY, Codex
from agents.standin import StandIn
from tests.agent_programs import CODEX
from tests.runtimes.cases import CASES, Case
from tests.runtimes.conftest import MakeLaunch, confined_launch
from tests.runtimes.playing import play, talk
from tests.runtimes.records import bodies

RUNTIME = Codex()


def settings(command: Command) -> dict[str, str]:
    argv = command.argv
    return dict(argv[at + 1].partition("=")[::2] for at, word in enumerate(argv) if word == "-c")


@pytest.fixture
def case() -> Case:
    return CASES[CODEX]


def test_the_key_is_bound_to_its_address(stand_in: Path, make_launch: MakeLaunch) -> None:
    key = Credential("api_key", "very-secret", "https://gateway.example/v1")
    launch = make_launch(**confined_launch(credential=key))
    command = RUNTIME.command(launch)
    assert command.env[KEY] == "very-secret"
    given = settings(command)
    assert given["model_providers.huskies.base_url"] == '"https://gateway.example/v1"'
    assert given["model_providers.huskies.env_key"] == f'"{KEY}"'
    assert (command.env["CODEX_HOME"], command.env["TZ"]) == (str(launch.config), "UTC")


def test_a_value_cannot_become_a_setting(stand_in: Path, make_launch: MakeLaunch) -> None:
    config = {"system_prompt": 'Be "brief".\nmodel_provider = "evil"'}
    given = settings(RUNTIME.command(make_launch(**confined_launch(agent_config=config))))
    assert json.loads(given["developer_instructions"]) == config["system_prompt"]


def test_the_hosts_own_log_in_goes_to_codexs_own_provider(
    stand_in: Path, make_launch: MakeLaunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEX_HOME", str(tmp_path))
    (tmp_path / "auth.json").write_text("{}")
    command = RUNTIME.command(make_launch(**confined_launch(credential=Credential("host_login"))))
    assert "model_provider" not in settings(command)


@pytest.mark.needs_codex
@pytest.mark.needs_bubblewrap
def test_the_real_program_gives_up_where_nothing_answers(
    real: None, case: Case, make_launch: MakeLaunch
) -> None:
    with StandIn([]) as standin:
        gone = case.against(standin)
    _, outcome = play(RUNTIME, make_launch(**gone))
    assert outcome.kind == "overloaded"


@pytest.mark.needs_codex
@pytest.mark.needs_bubblewrap
def test_the_real_program_asks_and_is_allowed_and_denied(
    real: None, case: Case, make_launch: MakeLaunch
) -> None:
    turns = [
        {"run": "echo one > one.txt"},
        {"run": "echo two > two.txt"},
        {"write": {"path": "three.txt", "content": "three\n"}, "match": "Not that one"},
        "Done.",
    ]
    decisions = [Decision(True), Decision(False, reason="Not that one."), Decision(True, "session")]

    def reply(event: Event) -> str | None:
        return RUNTIME.answer(event.body, decisions.pop(0)) if event.kind == "permission" else None

    with StandIn(turns) as standin:
        launch = make_launch(**case.against(standin, permissions="ask"))
        events, outcome = talk(RUNTIME, launch, reply)
        assert (outcome.kind, standin.problems, standin.left()) == ("done", [], 0)
    asked = bodies(events, "permission")
    assert [(body["tool"], body["input"].get("command")) for body in asked] == [
        ("shell", "echo one > one.txt"),
        ("shell", "echo two > two.txt"),
        ("edit", None),
    ]
    assert Path(asked[2]["input"]["file_path"]).name == "three.txt"
    assert sorted(path.name for path in launch.copy.glob("*.txt")) == ["one.txt", "three.txt"]


BUSY = {"run": "touch busy; until test -e .git/go; do sleep 0.05; done"}


@pytest.mark.needs_codex
@pytest.mark.needs_bubblewrap
def test_the_real_program_takes_a_message_into_its_turn(
    real: None, case: Case, make_launch: MakeLaunch
) -> None:
    with StandIn([BUSY, {"text": "Red it is.", "match": "Make it red"}]) as standin:
        launch = make_launch(**case.against(standin))

        def reply(event: Event) -> str | None:
            if event.kind != "tool_start":
                return None
            (launch.copy / ".git/go").touch()
            return RUNTIME.message("Make it red.")

        events, outcome = talk(RUNTIME, launch, reply)
        assert (outcome.kind, standin.problems, standin.left()) == ("done", [], 0)
    assert [body["text"] for body in bodies(events, "text")][-1] == "Red it is."


@pytest.mark.needs_codex
@pytest.mark.needs_bubblewrap
def test_the_real_program_is_interrupted_and_goes_on_with_other_words(
    real: None, case: Case, make_launch: MakeLaunch
) -> None:
    with StandIn([BUSY | {"usage": {"input": 1000}}, {"text": "Gladly.", "match": "Do this"}]) as standin:
        launch = make_launch(**case.against(standin))
        interrupt, words = RUNTIME.command(launch).interrupt or "", RUNTIME.message("Do this instead.")

        def reply(event: Event) -> str | None:
            return f"{interrupt}{words}" if event.kind == "tool_start" else None

        events, outcome = talk(RUNTIME, launch, reply)
        assert (outcome.kind, standin.problems, standin.left()) == ("done", [], 0)
    ends = [(body["error"], body["text"]) for body in bodies(events, "ended")]
    assert ends == [(True, "The agent was interrupted."), (False, "")]
    assert bodies(events, "usage")[0]["input"] == 1000


@pytest.mark.needs_codex
@pytest.mark.needs_bubblewrap
@pytest.mark.parametrize("resume", [False, True], ids=["new", "resumed"])
def test_the_real_program_trusts_no_repository_and_reads_its_words_for_agents(
    real: None, case: Case, make_launch: MakeLaunch, resume: bool
) -> None:
    """Codex trusts a folder that a new conversation is begun in by name: then the repository's servers and words would be obeyed."""
    trap = '[mcp_servers.evil]\ncommand = "touch"\nargs = ["{}"]\n'
    with StandIn(["One.", "Two."]) as standin:
        launch = make_launch("one", **case.against(standin))
        if resume:
            play(RUNTIME, launch)
            before, launch = launch, make_launch("two", resume=True, **case.against(standin))
        (launch.copy / ".codex").mkdir()
        planted = 'developer_instructions = "EVIL WORDS"\n' + trap.format(launch.copy / "trap")
        (launch.copy / ".codex/config.toml").write_text(planted)
        (launch.copy / "AGENTS.md").write_text("WORDS FOR AGENTS\n")
        _, outcome = play(RUNTIME, launch, RUNTIME.carry(before.config, launch) if resume else [])
        assert outcome.kind == "done"
        told = json.dumps(standin.requests("model")[-1]["body"])
    assert "WORDS FOR AGENTS" in told and "EVIL WORDS" not in told
    assert not (launch.copy / "trap").exists() and not (launch.config / "config.toml").exists()
    assert f"<cwd>{launch.copy}" in told
