"""The runtimes openai-api, gemini-api and anthropic-api: their command, and what is carried."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.runtimes import api_packages
from agents.runtimes.api import DIRECT_APIS, EDIT_TOOLS, OPENAI, DirectApi
from agents.runtimes.base import Command, Credential, Launch, LaunchRefused, ProgramMissing
from tests.runtimes.conftest import MakeLaunch

KEY = "sk-test-0123456789abcdef"
each_api = pytest.mark.parametrize("runtime", DIRECT_APIS, ids=lambda one: one.name)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the packages' place, for tests of the command line alone."""
    folder = tmp_path / "packages"
    (folder / "pydantic_ai_slim-9.8.7.dist-info").mkdir(parents=True)
    monkeypatch.setattr(api_packages, "folder", lambda: folder)
    return folder


def asked_of(command: Command) -> dict[str, Any]:
    (line,) = command.stdin.splitlines()
    request: dict[str, Any] = json.loads(line)
    return request


# ---------------------------------------------------------------- the command


@each_api
def test_the_key_and_the_prompt_go_in_on_stdin_and_nowhere_else(
    packages: Path, make_launch: MakeLaunch, runtime: DirectApi
) -> None:
    launch = make_launch(
        prompt="-x; $(touch trap)", credential=Credential("api_key", KEY), level="bubblewrap"
    )
    command = runtime.command(launch)
    assert (asked_of(command)["key"], asked_of(command)["prompt"]) == (KEY, launch.prompt)
    assert KEY not in json.dumps([command.argv, command.env, command.files]) + repr(
        replace(command, stdin="")
    )
    assert command.env["HUSKIES_BASE_URL"] == runtime.provider + runtime.version
    assert packages in command.readable


def test_where_the_requests_go_is_the_credentials_or_the_agents_to_say(
    packages: Path, make_launch: MakeLaunch
) -> None:
    by_entry = make_launch(agent_config={"base_url": "https://models.example/v1"})
    assert OPENAI.command(by_entry).env["HUSKIES_BASE_URL"] == "https://models.example/v1"
    by_key = replace(by_entry, credential=Credential("api_key", KEY, "http://127.0.0.1:9/v1"))
    assert OPENAI.command(by_key).env["HUSKIES_BASE_URL"] == "http://127.0.0.1:9/v1"


def test_without_bubblewrap_it_has_no_shell(packages: Path, make_launch: MakeLaunch) -> None:
    assert asked_of(OPENAI.command(make_launch()))["tools"] == list(EDIT_TOOLS)
    assert "run_command" in asked_of(OPENAI.command(make_launch(level="bubblewrap")))["tools"]
    with pytest.raises(LaunchRefused, match="leave none"):
        OPENAI.command(make_launch(agent_config={"allowed_tools": ["run_command"]}))


def test_tools_are_allowed_and_refused_whole(packages: Path, make_launch: MakeLaunch) -> None:
    config = {"allowed_tools": ["*file*"], "disallowed_tools": ["find_*"]}
    assert asked_of(OPENAI.command(make_launch(agent_config=config)))["tools"] == [
        "read_file", "search_files", "write_file", "edit_file",
    ]  # fmt: skip
    with pytest.raises(LaunchRefused, match="allowed whole"):
        OPENAI.command(make_launch(agent_config={"disallowed_tools": ["run_command(rm:*)"]}))


@each_api
def test_what_it_cannot_be_given_is_refused(
    packages: Path, make_launch: MakeLaunch, runtime: DirectApi
) -> None:
    with pytest.raises(LaunchRefused, match="no OAuth token"):
        runtime.command(make_launch(credential=Credential("oauth_token", "x")))
    with pytest.raises(LaunchRefused, match=f"{runtime.name} has no key for https:"):
        runtime.command(make_launch(credential=None))
    with pytest.raises(LaunchRefused, match="not a name of a model"):
        runtime.command(make_launch(model="--help"))
    packages.rename(packages.with_name("gone"))
    with pytest.raises(ProgramMissing, match=r"Install them: \./huskies runtime install api"):
        runtime.command(make_launch())


@each_api
def test_find_tells_the_version_or_the_one_command_that_installs_it(
    packages: Path, runtime: DirectApi
) -> None:
    assert (runtime.find().version, runtime.find().remedy) == ("9.8.7", "")
    assert runtime.program() == runtime.find().path
    packages.rename(packages.with_name("gone"))
    assert (runtime.find().path, runtime.program()) == (None, None)
    assert "./huskies runtime install api" in runtime.find().remedy


# ---------------------------------------------------------------- what is carried to the next session


def memory(config: Path, launch: Launch) -> Path:
    path = config / "api" / f"{launch.conversation}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[]")
    return path


def test_only_the_conversation_is_carried(make_launch: MakeLaunch, tmp_path: Path) -> None:
    launch = make_launch("two")
    source = memory(tmp_path / "old", launch)
    (source.parent / "other.json").write_text("[]")
    target = launch.config / "api"
    assert OPENAI.carry(tmp_path / "old", launch) == [
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
    source = memory(old, launch)
    source.unlink()
    if trap == "link":
        source.symlink_to(secret)
    elif trap == "hard link":
        source.hardlink_to(secret)
    elif trap == "folder":
        source.mkdir()
    elif trap == "linked folder":
        source.parent.rmdir()
        source.parent.symlink_to(memory(tmp_path / "elsewhere", launch).parent)
    assert OPENAI.carry(old, launch) == []
