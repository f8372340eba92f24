"""The `gemini-cli` runtime: its command, its files, and the real program against the stand-in."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.runtimes.base import Command, Credential
from agents.runtimes.gemini_cli import PROVIDER, GeminiCli
from tests.agent_programs import GEMINI
from tests.runtimes.cases import CASES, Case
from tests.runtimes.conftest import MakeLaunch, confined_launch

RUNTIME = GeminiCli()


def written(command: Command, name: str) -> Any:
    (text,) = [one[2] for one in command.files if one[0] == "write" and str(one[1]).endswith(f"/{name}")]
    return json.loads(str(text))


@pytest.fixture
def case() -> Case:
    return CASES[GEMINI]


def test_the_keys_address_is_always_named(stand_in: Path, make_launch: MakeLaunch) -> None:
    """What is named in the environment a repository's .env cannot change."""
    command = RUNTIME.command(make_launch(**confined_launch(credential=Credential("api_key", "very-secret"))))
    assert (command.env["GEMINI_API_KEY"], command.env["GOOGLE_GEMINI_BASE_URL"]) == ("very-secret", PROVIDER)
    assert "HTTP_PROXY" in command.env


def test_limits_and_tools_come_from_the_agents_entry(stand_in: Path, make_launch: MakeLaunch) -> None:
    config = {"max_turns": 9, "disallowed_tools": ["write_file"], "provider_retries": 99}
    settings = written(RUNTIME.command(make_launch(**confined_launch(agent_config=config))), "settings.json")
    assert (settings["model"]["maxSessionTurns"], settings["general"]["maxAttempts"]) == (9, 10)
    assert "run_shell_command" in settings["tools"]["core"] and "write_file" not in settings["tools"]["core"]


def test_the_hosts_own_log_in_is_chosen(
    stand_in: Path, make_launch: MakeLaunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_CLI_HOME", str(tmp_path))
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini" / "oauth_creds.json").write_text("{}")
    command = RUNTIME.command(make_launch(**confined_launch(credential=Credential("host_login"))))
    assert written(command, "settings.json")["security"]["auth"] == {"selectedType": "oauth-personal"}
