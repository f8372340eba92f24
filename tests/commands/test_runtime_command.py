"""`runtime list` and `runtime check`: with and without a server, for people and as JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from agents.models import RuntimeCheck
from agents.services import preflight
from pipeline import conf
from pipeline.datafolder import prepare
from pipeline.models import Process
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings.HUSKIES_HOME = tmp_path / "data"
    settings.HUSKIES_NO_QUEUE = True
    prepare(conf.home())
    monkeypatch.setenv("HUSKIES_CLAUDE", "/nowhere/claude")
    factories.coder(factories.project(), runtime="claude-code", entry={})
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    """(exit code, what it said)."""
    out = io.StringIO()
    try:
        call_command("runtime", *words, stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return int(str(end.code)), out.getvalue()
    return 0, out.getvalue()


def read(*words: str) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(run(*words, "--json")[1])}


def test_the_list_tells_every_runtime_those_in_use_first(home: Path) -> None:
    found = read("list")
    assert next(iter(found)) == "claude-code" and {"codex", "gemini-cli", "command", "scripted"} <= set(found)
    assert (found["claude-code"]["state"], found["codex"]["state"]) == ("unknown", "unused")
    assert (found["claude-code"]["agents"], found["claude-code"]["checked"]) == (1, None)


def test_a_missing_program_is_told_with_the_remedy_and_a_code_that_scripts_can_read(home: Path) -> None:
    code, said = run("check")
    assert code == 0 and "unfit" in said and "HUSKIES_CLAUDE" in said and "codex" not in said
    assert run("check", "--wait")[0] == 1
    row = read("check", "claude-code", "--wait")["claude-code"]
    assert (row["state"], row["path"], row["version"]) == ("unfit", None, None)
    assert row["reason"].startswith("The program of Claude Code") and "claude" in row["remedy"]
    with pytest.raises(CommandError, match="There is no runtime 'cladue'"):
        run("check", "cladue")


@pytest.mark.needs_claude
@pytest.mark.needs_bubblewrap
@pytest.mark.on_sqlite
def test_without_a_server_it_makes_the_check_itself(
    home: Path, claude_program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUSKIES_CLAUDE", str(claude_program))
    assert "begin with the next `./huskies up`" in run("check")[1]
    assert Process.objects.get().state == "prepared"
    code, said = run("check", "--wait")
    assert (code, "fit" in said, Process.objects.get().state) == (0, True, "handled"), said
    row = read("list")["claude-code"]
    assert (row["state"], row["proved"], row["reason"]) == ("fit", ["flags", "parser", "sandbox"], None)
    assert row["seconds"] > 0 and RuntimeCheck.objects.get().fingerprint == preflight.fingerprint(
        preflight.get_runtime("claude-code")
    )
