"""A real `up` tries the programs that its agents use by itself, also when its supervisor is killed in the middle."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import factories
from tests.stack.server import Up, command

BROKEN = """#!/bin/sh
if [ "$1" = --version ]; then
    while ! test -e "$0.go"; do sleep 0.05; done
    exec echo 2.1.330
fi
echo no such flag >&2
exit 1
"""
"""Held where it is asked for its version, outside of the sandbox: until the test says so."""


@pytest.mark.long
@pytest.mark.on_sqlite
def test_what_agents_use_is_tried_and_a_killed_supervisor_does_not_lose_it(
    start: Callable[..., Up], home: Path, tmp_path: Path
) -> None:
    program = tmp_path / "claude"
    program.write_text(BROKEN)
    program.chmod(0o755)
    up = start(HUSKIES_CLAUDE=str(program)).ready()
    repository = factories.repository(tmp_path / "shop")  # without a project file: its agents are Claude Code
    assert command(home, "project", "add", str(repository)).returncode == 0
    wanted = '"state": "checking"'
    while wanted not in command(home, "runtime", "list", "--json").stdout:
        assert up.child.poll() is None
    os.kill(up.parts["supervisor"], signal.SIGKILL)
    (tmp_path / "claude.go").touch()
    up.wait_for(r"runtime claude-code on \S+ is not fit: .*no such flag")
    listed = command(home, "runtime", "list").stdout
    assert "claude-code    unfit" in listed and "no such flag" in listed and "2.1.330" in listed
