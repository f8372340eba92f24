"""What every runtime is, whatever program it drives."""

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agents.agentfile import DEFAULT_RUNTIME, RUNTIME_KEYS
from agents.runtimes import RUNTIMES, api_packages
from agents.runtimes.base import Decision, Launch, LaunchRefused, Runtime
from tests.agent_programs import AGENT_PROGRAMS
from tests.runtimes.conftest import MakeLaunch
from tests.runtimes.records import Record, ended, fed, note

SCRIPT = {"script": [{"say": "hello"}], "command": "echo hello"}
PROGRAMS = {one.runtime: one.variable for one in AGENT_PROGRAMS}

every_runtime = pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=list(RUNTIMES))


@pytest.fixture
def launch(make_launch: MakeLaunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """A launch that every runtime takes; programs are stood in for."""
    stand_in = tmp_path / "program"
    stand_in.write_text("#!/bin/sh\necho 1.2.3\n")
    stand_in.chmod(0o755)
    for variable in PROGRAMS.values():
        monkeypatch.setenv(variable, str(stand_in))
    monkeypatch.setattr(api_packages, "folder", lambda: tmp_path)
    monkeypatch.setenv("SECRET_KEY", "canary")
    return make_launch(level="bubblewrap", prompt="-x; $(touch trap)", agent_config=SCRIPT)


def test_they_are_known_by_their_names() -> None:
    assert {name: runtime.name for name, runtime in RUNTIMES.items()} == {name: name for name in RUNTIMES}
    assert DEFAULT_RUNTIME in RUNTIMES


@every_runtime
def test_it_says_what_it_is_and_where_its_key_goes(runtime: Runtime) -> None:
    assert runtime.label and set(runtime.keys) <= set(RUNTIME_KEYS)
    parts = urlsplit(runtime.provider)
    assert runtime.provider == "" or (parts.scheme, parts.path) == ("https", "")


@every_runtime
def test_its_command_is_whole_and_hands_nothing_of_the_servers_on(runtime: Runtime, launch: Launch) -> None:
    command = runtime.command(launch)
    assert all(isinstance(word, str) and word for word in command.argv)
    assert launch.prompt in command.stdin or runtime.name == "scripted"
    assert not any("touch" in word for word in command.argv)
    assert "canary" not in command.env.values()
    assert {name: command.env[name] for name in ("HOME", "TMPDIR", "GIT_AUTHOR_NAME")} == {
        "HOME": str(launch.home),
        "TMPDIR": str(launch.tmp),
        "GIT_AUTHOR_NAME": launch.git_identity.name,
    }
    # What is done before it starts stays within the session's own folders.
    targets = [Path(str(one[-1] if one[0] == "copy" else one[1])) for one in command.files]
    assert all(target.is_relative_to(launch.config) for target in targets)
    json.dumps([command.argv, command.env, command.files])


@every_runtime
def test_a_conversation_that_is_not_there_is_not_carried(
    runtime: Runtime, launch: Launch, tmp_path: Path
) -> None:
    assert runtime.carry(tmp_path / "nowhere", launch) == []
    (tmp_path / "empty").mkdir()
    assert runtime.carry(tmp_path / "empty", launch) == []


@every_runtime
def test_a_runner_that_ended_it_is_believed(runtime: Runtime) -> None:
    for how, kind in (
        ("stopped", "stopped"),
        ("silent", "hung"),
        ("timeout", "wall_limit"),
        ("output_limit", "output_limit"),
    ):
        parser = runtime.parser()
        fed(parser, [note("step-start", step="agent"), Record(1, b"words"), Record(2, b"words")])
        assert parser.outcome(ended(None, outcome=how)).kind == kind
    assert runtime.parser().outcome(None).kind == "lost"
    assert runtime.parser().outcome({"outcome": "spawn_failed"}).detail == "program"


@every_runtime
def test_a_line_that_is_not_its_language_is_kept_masked(runtime: Runtime) -> None:
    parser = runtime.parser(None, lambda line: line.replace(b"secret", b"***"))
    events = fed(
        parser, [note("step-start", step="agent"), Record(1, b"a secret line"), Record(2, b"secret")]
    )
    assert [event.body["text"] for event in events if event.kind in ("output", "text")] == [
        "a *** line",
        "***",
    ]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("codex", "allowed_tools"),
        ("codex", "disallowed_tools"),
        ("opencode", "max_turns"),
        ("command", "max_turns"),
        ("command", "max_budget_usd"),
    ],
)
def test_a_key_that_would_do_nothing_is_refused_by_name(name: str, key: str, launch: Launch) -> None:
    config = {**launch.agent_config, key: ["Edit"]}
    with pytest.raises(LaunchRefused, match=f"{name} cannot keep to `{key}`"):
        RUNTIMES[name].command(replace(launch, agent_config=config))


@every_runtime
def test_what_shared_budgets_leave_keeps_no_program_from_starting(runtime: Runtime, launch: Launch) -> None:
    config = {**launch.agent_config, "budget_left_usd": "0.75"}
    assert runtime.command(replace(launch, agent_config=config)).argv


@every_runtime
def test_an_answer_is_one_line_for_its_stdin_or_none(runtime: Runtime) -> None:
    for decision in (Decision(True), Decision(True, "session"), Decision(False, reason="No.\nNot here.")):
        line = runtime.answer(
            {"id": "r1", "tool": "Bash", "input": {"command": "ls"}, "text": "ls"}, decision
        )
        assert line is None or (line and "\n" not in line.rstrip("\n"))
