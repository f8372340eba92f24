"""The `acp` runtime: its keys in the project file, its command, and what it carries from session to session."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agents.agentfile import AgentsParser
from agents.runtimes import RUNTIMES, acp
from agents.runtimes.acp import FILES, Acp
from agents.runtimes.acp_home import move_home
from agents.runtimes.base import Credential, LaunchRefused
from pipeline.projectfile import ProjectFile, ProjectFileError, approvals_needed, parse
from tests.runtimes.conftest import MakeLaunch

RUNTIME = Acp()


def confined(**changes: Any) -> dict[str, Any]:
    return {"level": "bubblewrap", **changes}


# ---------------------------------------------------------------- the project file

SECTIONS = {"agents": AgentsParser({name: runtime.keys for name, runtime in RUNTIMES.items()})}
ENTRY = "agents:\n  - name: coder-1\n    runtime: acp\n    command: [gemini, --acp]\n"


def file_with(*lines: str) -> ProjectFile:
    return parse(ENTRY + "".join(f"    {line}\n" for line in lines), sections=SECTIONS)


def test_its_keys_are_read_and_what_they_cannot_be_is_told_with_the_line() -> None:
    file = file_with("mode: yolo", "auth_method: gemini-api-key")
    (agent,) = SECTIONS["agents"].from_json(file.sections["agents"].to_json()).agents
    assert (agent.command, agent.mode, agent.auth_method) == (("gemini", "--acp"), "yolo", "gemini-api-key")
    with pytest.raises(ProjectFileError) as caught:
        file_with("mode: full access", "auth_method: [1]")
    assert [str(problem).partition(" ")[0] for problem in caught.value.problems] == [
        ".huskies/project.yaml:5:",
        ".huskies/project.yaml:6:",
    ]
    with pytest.raises(
        ProjectFileError, match="means nothing to the runtime claude-code: it is for the runtime acp"
    ):
        parse("agents:\n  - name: a\n    mode: yolo\n", sections=SECTIONS)


def test_a_new_command_and_a_new_mode_wait_for_an_approval() -> None:
    for before, after in (
        (ProjectFile.default(SECTIONS), file_with()),
        (file_with(), file_with("args: [-x]")),
        (file_with(), file_with("mode: yolo")),
        (file_with("mode: plan"), file_with("mode: yolo")),
    ):
        (reason,) = approvals_needed(before, after)
        assert (reason.kind, reason.where) == ("command", "agents.coder-1.command")
    assert "(mode plan)` to " in reason.message and "(mode yolo)" in reason.message
    assert approvals_needed(file_with("mode: yolo"), file_with("mode: yolo", "model: other")) == []


# ---------------------------------------------------------------- the command


def test_the_entry_names_the_program_and_nothing_of_the_story_is_an_argument(make_launch: MakeLaunch) -> None:
    entry = {"command": "GEMINI_API_KEY=$HUSKIES_API_KEY exec gemini --acp", "args": ["-x"], "mode": "yolo"}
    key = Credential("api_key", "very-secret", "https://gateway.example")
    launch = make_launch(
        **confined(prompt="--help; $(touch x)", model="m-1", credential=key, agent_config=entry)
    )
    command = RUNTIME.command(launch)
    request = json.loads(command.stdin)
    assert request["argv"] == ["/bin/sh", "-c", f'{entry["command"]} "$@"', "sh", "-x"]
    assert (request["mode"], request["model"], request["resume"], request["ask"]) == (
        "yolo",
        "m-1",
        False,
        False,
    )
    assert not any("touch" in word for word in [*command.argv, *command.env.values()])
    assert (command.env["HUSKIES_API_KEY"], command.env["HUSKIES_BASE_URL"]) == ("very-secret", key.base_url)
    assert "very-secret" not in repr(command) + command.stdin + json.dumps(command.argv)
    assert set(FILES) <= set(command.readable) and all(file.is_file() for file in FILES)


def test_it_has_the_agents_instructions_once_and_asks_where_permissions_say_so(
    make_launch: MakeLaunch,
) -> None:
    entry = {"command": "x", "system_prompt": "Be brief.", "permissions": "ask"}
    first = json.loads(RUNTIME.command(make_launch(**confined(agent_config=entry))).stdin)
    again = json.loads(RUNTIME.command(make_launch(**confined(agent_config=entry, resume=True))).stdin)
    assert (first["prompt"], again["prompt"]) == ("Be brief.\n\nDo the story.", "Do the story.")
    assert first["ask"] is True


def test_what_it_cannot_be_given_is_refused(make_launch: MakeLaunch) -> None:
    with pytest.raises(LaunchRefused, match="needs bubblewrap"):
        RUNTIME.command(make_launch(agent_config={"command": "x"}))
    with pytest.raises(LaunchRefused, match="no `command`"):
        RUNTIME.command(make_launch(**confined()))
    with pytest.raises(LaunchRefused, match="no log-in of the host's"):
        RUNTIME.command(
            make_launch(**confined(credential=Credential("host_login"), agent_config={"command": "x"}))
        )
    for key in ("max_turns", "allowed_tools"):
        with pytest.raises(LaunchRefused, match=f"acp cannot keep to `{key}`"):
            RUNTIME.command(make_launch(**confined(agent_config={"command": "x", key: 3})))


def test_find_tells_the_version_of_the_protocols_sdk_or_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = RUNTIME.find()
    assert (found.path, found.remedy) == (acp.CLIENT, "")
    assert found.version is not None and found.version.startswith("0.12.")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert RUNTIME.find().path is None and "requirements.lock" in RUNTIME.find().remedy


# ---------------------------------------------------------------- what is carried to the next session


def kept(config: Path, **changes: Any) -> Path:
    """A home with a conversation, and the note beside it."""
    home = config / "acp" / "home"
    (home / ".program" / "chats").mkdir(parents=True)
    (home / ".program" / "chats" / "one.jsonl").write_text("{}\n")
    (home / ".cache").mkdir()
    (home / ".cache" / "big").write_text("x")
    note = {"session": "s-1", "resumes": True, **changes}
    (home.parent / acp.CONVERSATION).write_text(json.dumps(note))
    return home


def test_the_programs_home_is_carried_without_caches(make_launch: MakeLaunch, tmp_path: Path) -> None:
    launch = make_launch("two")
    home, target = kept(tmp_path / "old"), launch.config / "acp" / "home"
    assert RUNTIME.carry(tmp_path / "old", launch) == [
        ["mkdir", str(target)],
        ["mkdir", str(target / ".program")],
        ["mkdir", str(target / ".program" / "chats")],
        ["copy", str(home / ".program/chats/one.jsonl"), str(target / ".program/chats/one.jsonl")],
        ["copy", str(home.parent / acp.CONVERSATION), str(target.parent / acp.CONVERSATION)],
    ]


@pytest.mark.parametrize("note", [{"resumes": False}, {"session": ""}])
def test_a_program_that_cannot_go_on_begins_anew(
    make_launch: MakeLaunch, tmp_path: Path, note: dict[str, Any]
) -> None:
    kept(tmp_path / "old", **note)
    assert RUNTIME.carry(tmp_path / "old", make_launch("two")) == []


@pytest.mark.parametrize("trap", ["link", "hard link", "linked folder", "bad name", "fifo"])
def test_a_trap_in_the_home_is_left_behind(make_launch: MakeLaunch, tmp_path: Path, trap: str) -> None:
    """The copies are made outside of the confinement, with the server's rights."""
    launch, secret, home = make_launch("two"), tmp_path / "secret", kept(tmp_path / "old")
    secret.mkdir()
    (secret / "key").write_text("secret")
    place = home / "t-r-a-p"
    if trap == "link":
        place.symlink_to(secret / "key")
    elif trap == "hard link":
        place.hardlink_to(secret / "key")
    elif trap == "linked folder":
        place.symlink_to(secret)
    elif trap == "fifo":
        os.mkfifo(place)
    else:
        Path(os.fsdecode(os.fsencode(home) + b"/t-r-a-p\xff")).touch()
    carried = RUNTIME.carry(tmp_path / "old", launch)
    assert len(carried) == 5 and "t-r-a-p" not in json.dumps(carried)


@pytest.mark.parametrize("place", ["", "acp", "acp/conversation.json"])
def test_a_linked_or_unreadable_note_carries_nothing(
    make_launch: MakeLaunch, tmp_path: Path, place: str
) -> None:
    kept(tmp_path / "real")
    old = tmp_path / "old" / place
    old.parent.mkdir(parents=True, exist_ok=True)
    old.symlink_to(tmp_path / "real" / place)
    assert RUNTIME.carry(tmp_path / "old", make_launch("two")) == []
    (tmp_path / "real" / "acp" / acp.CONVERSATION).write_bytes(b"[" * 5000)
    assert RUNTIME.carry(tmp_path / "real", make_launch("three")) == []


def test_a_home_that_is_too_large_is_not_carried(
    make_launch: MakeLaunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = kept(tmp_path / "old")
    deep = home.joinpath(*"a" * 500)
    deep.mkdir(parents=True)
    assert len(RUNTIME.carry(tmp_path / "old", make_launch("two"))) == 5 + acp.MOST_DEPTH
    monkeypatch.setattr(acp, "MOST_FILES", 9)
    assert RUNTIME.carry(tmp_path / "old", make_launch("two")) == [], "folders are counted too"
    monkeypatch.undo()
    monkeypatch.setattr(acp, "MOST_BYTES", 2)
    assert RUNTIME.carry(tmp_path / "old", make_launch("two")) == []


def test_a_home_names_the_new_copy_wherever_it_named_the_old_one(tmp_path: Path) -> None:
    old, new, longer = (f"/data/copies/{key}" for key in ("0123456789abcdef", "fedcba9876543210", "x"))
    home = tmp_path / "home"
    record = home / "-data-copies-0123456789abcdef" / "record.jsonl"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"cwd": old, "slug": "0123456789abcdef"}))
    (home / "index.db").write_bytes(b"\0" + old.encode())
    chats = home / "chats"
    chats.mkdir()
    (chats / "session-2026-11-25T04-43-078ee324.jsonl").touch()
    move_home(str(home), old, new)
    moved = home / "-data-copies-fedcba9876543210" / "record.jsonl"
    assert moved.is_file() and not record.exists()
    assert json.loads(moved.read_text()) == {"cwd": new, "slug": "fedcba9876543210"}
    assert (home / "index.db").read_bytes() == b"\0" + new.encode()
    # Gemini CLI would write over it, if this is the minute in which it was made.
    assert [file.name for file in chats.iterdir()] == ["session-2000-01-01T00-00-078ee324.jsonl"]
    move_home(str(home), new, longer)
    moved = home / "-data-copies-x" / "record.jsonl"
    assert json.loads(moved.read_text())["cwd"] == longer
    assert (home / "index.db").read_bytes() == b"\0" + new.encode(), "no text: its length must stay"
