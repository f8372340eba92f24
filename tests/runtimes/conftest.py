"""A session's folders, a working copy and a launch, for tests that run an agent program."""

import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.runtimes.base import Command, Credential, GitIdentity, Launch
from pipeline.processes.confine import confined

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


def run(launch: Launch, command: Command, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """The command as the server runs it: files first, confined at the launch's level."""
    do_files(command)
    folders = [launch.copy, launch.home, launch.tmp, launch.config]
    argv = confined(
        command.argv,
        level=launch.level,
        writable=[*folders, *command.writable],
        readable=command.readable,
        hidden=[],
        network=True,
        cwd=launch.copy,
    )
    return subprocess.run(
        argv,
        input=command.stdin.encode(),
        env=command.env,
        cwd=launch.copy,
        capture_output=True,
        timeout=100,
        check=False,
        **more,
    )
