"""The `codex` runtime: its command, its files, and the real program against the stand-in."""

import json
from pathlib import Path

import pytest

from agents.runtimes.base import Command, Credential
from agents.runtimes.codex import KEY, Codex
from agents.standin import StandIn
from tests.agent_programs import CODEX
from tests.runtimes.cases import CASES, Case
from tests.runtimes.conftest import MakeLaunch, confined_launch
from tests.runtimes.playing import play

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
