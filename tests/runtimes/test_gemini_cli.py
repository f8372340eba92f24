"""The `gemini-cli` runtime: its command, its files, and the real program against the fake provider."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from agents.runtimes.base import Command, Credential, LaunchRefused, ProgramMissing
from agents.runtimes.gemini_cli import CHATS, PROVIDER, GeminiCli
from tests.fake_provider import FakeProvider
from tests.runtimes.conftest import MakeLaunch
from tests.runtimes.playing import play
from tests.runtimes.records import bodies

RUNTIME = GeminiCli()
USAGE = {"input": 1000, "output": 100, "thinking": 7}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in Gemini CLI's place, for tests of the command line alone."""
    program = tmp_path / "bin" / "gemini"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 9.8.7\n")
    program.chmod(0o755)
    monkeypatch.setenv("HUSKIES_GEMINI", str(program))
    return program


def written(command: Command, name: str) -> Any:
    (text,) = [one[2] for one in command.files if one[0] == "write" and str(one[1]).endswith(f"/{name}")]
    return json.loads(str(text))


def confined(**changes: Any) -> dict[str, Any]:
    return {"level": "bubblewrap", **changes}


def test_the_prompt_is_never_an_argument(stand_in: Path, make_launch: MakeLaunch) -> None:
    command = RUNTIME.command(make_launch(**confined(prompt="--yolo; $(touch x)")))
    assert command.stdin == "--yolo; $(touch x)"
    assert not any("touch" in word for word in [*command.argv, *command.env.values()])
    with pytest.raises(LaunchRefused, match="not a name of a model"):
        RUNTIME.command(make_launch(**confined(model="--help")))


def test_the_key_is_in_the_environment_only_and_its_address_is_always_named(
    stand_in: Path, make_launch: MakeLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is named in the environment a repository's .env cannot change."""
    monkeypatch.setenv("GOOGLE_API_KEY", "canary")
    command = RUNTIME.command(make_launch(**confined(credential=Credential("api_key", "very-secret"))))
    assert (command.env["GEMINI_API_KEY"], command.env["GOOGLE_GEMINI_BASE_URL"]) == ("very-secret", PROVIDER)
    assert "HTTP_PROXY" in command.env and "canary" not in command.env.values()
    assert "very-secret" not in repr(command) + json.dumps(command.files)


def test_limits_and_tools_come_from_the_agents_entry(stand_in: Path, make_launch: MakeLaunch) -> None:
    config = {"max_turns": 9, "disallowed_tools": ["write_file"], "provider_retries": 99}
    settings = written(RUNTIME.command(make_launch(**confined(agent_config=config))), "settings.json")
    assert (settings["model"]["maxSessionTurns"], settings["general"]["maxAttempts"]) == (9, 10)
    assert "run_shell_command" in settings["tools"]["core"] and "write_file" not in settings["tools"]["core"]
    with pytest.raises(LaunchRefused, match="leave none"):
        RUNTIME.command(make_launch(**confined(agent_config={"allowed_tools": ["Telephone"]})))


def test_what_it_cannot_be_given_is_refused(
    stand_in: Path, make_launch: MakeLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LaunchRefused, match="needs bubblewrap"):
        RUNTIME.command(make_launch())
    with pytest.raises(LaunchRefused, match="no OAuth token"):
        RUNTIME.command(make_launch(**confined(credential=Credential("oauth_token", "x"))))
    with pytest.raises(LaunchRefused, match="has no key for https:"):
        RUNTIME.command(make_launch(**confined(credential=None)))
    monkeypatch.setenv("HUSKIES_GEMINI", "/nowhere/gemini")
    with pytest.raises(ProgramMissing, match="HUSKIES_GEMINI"):
        RUNTIME.command(make_launch(**confined()))


def test_the_hosts_own_log_in_is_copied_for_the_session(
    stand_in: Path, make_launch: MakeLaunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_CLI_HOME", str(tmp_path))
    launch = make_launch(**confined(credential=Credential("host_login")))
    with pytest.raises(LaunchRefused, match="not logged in"):
        RUNTIME.command(launch)
    assert RUNTIME.find().logged_in is False
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini" / "oauth_creds.json").write_text("{}")
    command = RUNTIME.command(launch)
    own = launch.config / ".gemini" / "oauth_creds.json"
    assert command.files[-1] == ["copy", str(tmp_path / ".gemini" / "oauth_creds.json"), str(own)]
    assert written(command, "settings.json")["security"]["auth"] == {"selectedType": "oauth-personal"}


def test_find_tells_path_and_version_or_the_remedy(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = RUNTIME.find()
    assert (found.path, found.version) == (stand_in, "9.8.7")
    monkeypatch.setenv("HUSKIES_GEMINI", "/nowhere/gemini")
    assert RUNTIME.find().path is None
    assert "HUSKIES_GEMINI" in RUNTIME.find().remedy


# ---------------------------------------------------------------- what is carried to the next session


def chat(config: Path, conversation: str) -> Path:
    path = config / CHATS / f"session-2026-11-25T00-00-{conversation[:8]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}\n")
    return path


def test_only_the_conversation_is_carried(make_launch: MakeLaunch, tmp_path: Path) -> None:
    launch = make_launch("two")
    source = chat(tmp_path / "old", launch.conversation)
    chat(tmp_path / "old", str(uuid.uuid4()))
    target = launch.config / CHATS
    assert RUNTIME.carry(tmp_path / "old", launch) == [
        ["mkdir", str(target)],
        ["copy", str(source), str(target / source.name)],
    ]


@pytest.mark.parametrize("trap", ["link", "hard link", "linked folder", "folder", "none"])
def test_a_conversation_that_is_a_trap_is_not_carried(
    make_launch: MakeLaunch, tmp_path: Path, trap: str
) -> None:
    """The copy is made outside of the confinement, with the server's rights."""
    launch, secret, old = make_launch("two"), tmp_path / "secret", tmp_path / "old"
    secret.write_text("secret")
    source = chat(old, launch.conversation)
    source.unlink()
    if trap == "link":
        source.symlink_to(secret)
    elif trap == "hard link":
        source.hardlink_to(secret)
    elif trap == "folder":
        source.mkdir()
    elif trap == "linked folder":
        source.parent.rmdir()
        source.parent.symlink_to(chat(tmp_path / "elsewhere", launch.conversation).parent)
    assert RUNTIME.carry(old, launch) == []


# ---------------------------------------------------------------- the real program


@pytest.fixture
def real(gemini_program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSKIES_GEMINI", str(gemini_program))


def against(fake: FakeProvider, **entry: Any) -> dict[str, Any]:
    key = Credential("api_key", "dummy-key", fake.url())
    return confined(credential=key, agent_config={"provider_retries": 1, **entry})


@pytest.mark.needs_gemini
@pytest.mark.needs_bubblewrap
def test_the_real_program_edits_and_goes_on_in_another_copy(real: None, make_launch: MakeLaunch) -> None:
    turns = [
        {"run": "echo hi > a.txt && git add -A && git commit -qm first", "usage": USAGE},
        {"text": "Done.", "usage": USAGE},
        {"write": {"path": "b.txt", "content": "x\n"}, "match": "It failed", "usage": USAGE},
        {"text": "Done again.", "usage": USAGE},
    ]
    with FakeProvider(turns) as fake:
        first = make_launch("one", **against(fake, system_prompt="Be brief."))
        events, outcome = play(RUNTIME, first)
        assert (outcome.kind, fake.problems) == ("done", [])
        assert [(body["input"], body["output"]) for body in bodies(events, "usage")] == [(1000, 107)] * 2
        told = json.dumps(fake.requests("model")[0]["body"])
        assert "Be brief." in told and "Do the story." in told

        second = make_launch(
            "two", resume=True, prompt="It failed.", conversation=first.conversation, **against(fake)
        )
        carried = RUNTIME.carry(first.config, second)
        assert carried != []
        events, outcome = play(RUNTIME, second, carried)
        assert (outcome.kind, fake.problems, fake.left()) == ("done", [], 0)
        assert [(body["input"], body["output"]) for body in bodies(events, "usage")] == [(1000, 107)] * 2
        resumed = json.dumps(fake.requests("model")[2]["body"]["contents"])
        assert "Do the story." in resumed and "It failed." in resumed
        assert (second.copy / "b.txt").read_text() == "x\n"


@pytest.mark.needs_gemini
@pytest.mark.needs_bubblewrap
def test_the_real_program_hands_out_no_key_and_runs_nothing_that_the_repository_names(
    real: None, make_launch: MakeLaunch
) -> None:
    with FakeProvider([{"run": "env > seen.txt"}, "Done."]) as fake:
        launch = make_launch(**against(fake))
        own = launch.copy / ".gemini"
        own.mkdir()
        (own / ".env").write_text("GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:9\nGEMINI_API_KEY=other\n")
        trap = {"command": "touch", "args": [str(launch.copy / "trap")], "type": "command"}
        hook = {"hooks": [{"type": "command", "command": f"touch {launch.copy}/trap"}]}
        settings = {
            "mcpServers": {"one": trap},
            "hooks": {"SessionStart": [hook], "BeforeTool": [{"matcher": "*", **hook}]},
        }
        (own / "settings.json").write_text(json.dumps(settings))
        _, outcome = play(RUNTIME, launch)
        assert (outcome.kind, fake.left()) == ("done", 0)
    seen = (launch.copy / "seen.txt").read_text()
    assert f"HOME={launch.home}" in seen and "dummy-key" not in seen
    assert not (launch.copy / "trap").exists()


@pytest.mark.needs_gemini
@pytest.mark.needs_bubblewrap
@pytest.mark.parametrize(
    ("turn", "kind"),
    [({"error": 401}, "auth"), ({"error": 404}, "bad_model"), ({"text": "a", "drop": True}, "overloaded")],
    ids=["401", "404", "broken"],
)
def test_the_real_programs_failures_have_their_names(
    real: None, make_launch: MakeLaunch, turn: dict[str, Any], kind: str
) -> None:
    with FakeProvider([turn | {"repeat": 9}]) as fake:
        _, outcome = play(RUNTIME, make_launch(**against(fake)))
    assert outcome.kind == kind


@pytest.mark.needs_gemini
@pytest.mark.needs_bubblewrap
def test_the_real_program_names_a_conversation_that_is_not_there(real: None, make_launch: MakeLaunch) -> None:
    with FakeProvider([]) as fake:
        _, outcome = play(RUNTIME, make_launch(resume=True, **against(fake)))
    assert (outcome.kind, outcome.detail) == ("config", "conversation_missing")
