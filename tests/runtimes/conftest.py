"""A session's folders, a working copy and a launch, for tests that run an agent program."""

import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.runtimes.base import Command, Credential, GitIdentity, Launch
from pipeline.processes.confine import confined
from tests.conftest import real_program
from tests.runtimes.cases import Case

IDENTITY = GitIdentity("huskies coder-1", "coder-1@huskies.invalid")
MakeLaunch = Callable[..., Launch]


def make_repository(copy: Path) -> None:
    env = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "HOME": str(copy),
        **{f"GIT_{who}_{what}": "t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    copy.mkdir(parents=True)
    for words in (["init", "-q", "-b", "huskies/story-7"], ["commit", "-q", "--allow-empty", "-m", "base"]):
        subprocess.run(["git", *words], cwd=copy, env=env, check=True)


@pytest.fixture
def make_launch(tmp_path: Path) -> MakeLaunch:
    """Launches of one story; each session (a name) has its own copy and private folders."""

    def make(session: str = "one", **changes: Any) -> Launch:
        root = tmp_path / "data" / session
        copy = root / "copy"
        if not copy.exists():
            make_repository(copy)
        for name in ("home", "tmp", "config"):
            (root / name).mkdir(exist_ok=True)
        given: dict[str, Any] = {
            "session_key": "0" * 20,
            "copy": copy,
            "home": root / "home",
            "tmp": root / "tmp",
            "config": root / "config",
            "prompt": "Do the story.",
            "conversation": str(uuid.uuid4()),
            "resume": False,
            "model": None,
            "agent_config": {},
            "level": "none",
            "credential": Credential("api_key", "dummy"),
            "story_number": 7,
            "base_branch": "main",
            "git_identity": IDENTITY,
        }
        return Launch(**(given | changes))

    return make


def do_files(command: Command) -> None:
    """The file operations of a command, as the runner does them."""
    for operation in command.files:
        name, *words = operation
        if name == "mkdir":
            Path(str(words[0])).mkdir(parents=True, exist_ok=True)
        elif name == "copy":
            Path(str(words[1])).write_bytes(Path(str(words[0])).read_bytes())
        elif name == "write":
            Path(str(words[0])).write_text(str(words[1]))
        else:
            pytest.fail(f"a runtime asked for {operation}, which these tests do not do")


def confined_argv(launch: Launch, command: Command) -> list[str]:
    """The command as the server runs it, once its files are done: confined at the launch's level."""
    do_files(command)
    folders = [launch.copy, launch.home, launch.tmp, launch.config]
    return confined(
        command.argv,
        level=launch.level,
        writable=[*folders, *command.writable],
        readable=command.readable,
        hidden=[],
        network=True,
        cwd=launch.copy,
    )


def run(launch: Launch, command: Command, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        confined_argv(launch, command),
        input=command.stdin.encode(),
        env=command.env,
        cwd=launch.copy,
        capture_output=True,
        timeout=100,
        check=False,
        **more,
    )


@pytest.fixture
def stand_in(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of the case's own, for tests of the command line alone."""
    program = tmp_path / "bin" / case.program.command
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'the-program 9.8.7 (of theirs)'\n")
    program.chmod(0o755)
    monkeypatch.setenv(case.program.variable, str(program))
    return program


@pytest.fixture
def real(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case's program itself; its test says that it needs it."""
    monkeypatch.setenv(case.program.variable, str(real_program(case.program)))


def confined_launch(**changes: Any) -> dict[str, Any]:
    return {"level": "bubblewrap", **changes}
