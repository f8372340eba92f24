"""What the runtimes of agent programs have in common, as far as it needs no real program."""

import json
import os
import uuid
from pathlib import Path

import pytest

from agents.runtimes.base import Credential, LaunchRefused, ProgramMissing
from tests.agent_programs import CLAUDE, CODEX, OPENCODE
from tests.runtimes.cases import CASES, Case, every_program
from tests.runtimes.conftest import MakeLaunch, confined_launch


@every_program
def test_the_prompt_is_never_an_argument(case: Case, stand_in: Path, make_launch: MakeLaunch) -> None:
    command = case.runtime.command(make_launch(**confined_launch(prompt="--yolo; $(touch x)")))
    assert "--yolo; $(touch x)" in command.stdin
    assert case.program in (CLAUDE, CODEX) or command.stdin == "--yolo; $(touch x)"
    assert not any("touch" in word for word in [*command.argv, *command.env.values()])


@every_program
def test_a_model_cannot_become_an_option(case: Case, stand_in: Path, make_launch: MakeLaunch) -> None:
    with pytest.raises(LaunchRefused, match="not a name of a model"):
        case.runtime.command(make_launch(**confined_launch(model="--help")))


@every_program
def test_the_key_is_in_the_environment_only_and_nothing_else_of_the_servers_is(
    case: Case, stand_in: Path, make_launch: MakeLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "DATABASE_URL",
        "SECRET_KEY",
        "SSH_AUTH_SOCK",
        "AWS_SECRET_ACCESS_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "OPENAI_API_KEY",
        "GOOGLE_API_KEY",
    ):
        monkeypatch.setenv(name, "canary")
    key = Credential("api_key", "very-secret", "https://gateway.example/v1")
    launch = make_launch(**confined_launch(credential=key))
    command = case.runtime.command(launch)
    assert "very-secret" in command.env.values() and "canary" not in command.env.values()
    assert "very-secret" not in repr(launch) + repr(command) + json.dumps([command.argv, command.files])
    given = json.dumps([command.argv, command.files, *command.env.values()])
    assert "https://gateway.example/v1" in given


@every_program
def test_what_it_cannot_be_given_is_refused(case: Case, stand_in: Path, make_launch: MakeLaunch) -> None:
    with pytest.raises(LaunchRefused, match=r"leave none|cannot keep to"):
        case.runtime.command(make_launch(**confined_launch(agent_config={"allowed_tools": ["Telephone"]})))
    if case.program == CLAUDE:  # it can be kept to edits, takes tokens, and says by itself that it has no key
        return
    with pytest.raises(LaunchRefused, match="needs bubblewrap"):
        case.runtime.command(make_launch())
    with pytest.raises(LaunchRefused, match="no OAuth token"):
        case.runtime.command(make_launch(**confined_launch(credential=Credential("oauth_token", "x"))))
    with pytest.raises(LaunchRefused, match="has no key for https:"):
        case.runtime.command(make_launch(**confined_launch(credential=None)))


@every_program
def test_the_hosts_own_log_in_is_copied_for_the_session_or_refused(
    case: Case, stand_in: Path, make_launch: MakeLaunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = make_launch(**confined_launch(credential=Credential("host_login")))
    if case.login is None:
        with pytest.raises(LaunchRefused, match="takes an API key"):
            case.runtime.command(launch)
        assert case.runtime.find().logged_in is None
        return
    variable, name = case.login
    monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(LaunchRefused, match="not logged in"):
        case.runtime.command(launch)
    assert case.runtime.find().logged_in is False
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    assert case.runtime.command(launch).files[-1] == ["copy", str(tmp_path / name), str(launch.config / name)]


@every_program
def test_find_tells_path_and_version_or_the_remedy(
    case: Case, stand_in: Path, make_launch: MakeLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = case.runtime.find()
    assert (found.path, found.version) == (stand_in, "9.8.7")
    monkeypatch.setenv(case.program.variable, "/nowhere/at-all")
    missing = case.runtime.find()
    assert missing.path is None and case.program.variable in missing.remedy
    with pytest.raises(ProgramMissing, match=case.program.variable):
        case.runtime.command(make_launch(**confined_launch()))


@every_program
def test_a_program_that_does_not_answer_is_told_with_what_it_said(case: Case, stand_in: Path) -> None:
    stand_in.write_text("#!/bin/sh\necho 'needs a newer kernel' >&2\nexit 3\n")
    found = case.runtime.find()
    assert found.version is None
    assert "needs a newer kernel" in found.remedy


# ---------------------------------------------------------------- what is carried to the next session


@every_program
def test_only_the_conversation_is_carried(case: Case, make_launch: MakeLaunch, tmp_path: Path) -> None:
    launch, old = make_launch("two"), tmp_path / "old"
    if case.program != OPENCODE:  # whose database holds one alone
        # An earlier one by its name too: Codex's, which chooses the ids itself, are known by their time.
        other = case.write_record(old, str(uuid.uuid4()))
        other.rename(other.with_name(other.name.replace("T01", "T00")))
    source = case.write_record(old, launch.conversation)
    (old / "settings.json").write_text('{"hooks": {}}')
    target = launch.config / case.carried(launch, str(source.relative_to(old)))
    assert case.runtime.carry(old, launch) == [
        ["mkdir", str(target.parent)],
        ["copy", str(source), str(target)],
    ]


@every_program
@pytest.mark.parametrize("trap", ["link", "hard link", "linked folder", "folder", "none"])
def test_a_record_that_is_a_trap_is_not_carried(
    case: Case, make_launch: MakeLaunch, tmp_path: Path, trap: str
) -> None:
    """The copy is made outside of the confinement, with the server's rights."""
    launch, secret, old = make_launch("two"), tmp_path / "secret", tmp_path / "old"
    secret.write_text("secret")
    source = case.write_record(old, launch.conversation)
    source.unlink()
    if trap == "link":
        source.symlink_to(secret)
    elif trap == "hard link":
        os.link(secret, source)
    elif trap == "folder":
        source.mkdir()
    elif trap == "linked folder":
        source.parent.rmdir()
        source.parent.symlink_to(case.write_record(tmp_path / "elsewhere", launch.conversation).parent)
    assert case.runtime.carry(old, launch) == []


def test_what_a_killed_opencode_had_not_brought_in_is_carried_too(
    make_launch: MakeLaunch, tmp_path: Path
) -> None:
    launch, case = make_launch("two"), CASES[OPENCODE]
    log = case.write_record(tmp_path, launch.conversation).with_name("opencode.db-wal")
    log.write_text("x")
    copied = [step[1] for step in case.runtime.carry(tmp_path, launch) if step[0] == "copy"]
    assert copied == [str(log.with_name("opencode.db")), str(log)]


def test_of_codex_the_newest_conversation_is_carried(make_launch: MakeLaunch, tmp_path: Path) -> None:
    case, launch = CASES[CODEX], make_launch("two")
    newest = case.write_record(tmp_path, "z")
    newest.with_name("rollout-2026-11-24T23-00-00-zz.jsonl").write_text("{}\n")
    assert case.runtime.carry(tmp_path, launch)[-1][1] == str(newest)
