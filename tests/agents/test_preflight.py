"""The pre-flight with the real agent programs, and with what may go wrong in their place: each check is a real run under a runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from agents import conf as agents_conf
from agents.models import RuntimeCheck
from agents.runtimes import RUNTIMES
from agents.services import preflight
from pipeline import conf
from pipeline.actors import SERVER
from pipeline.models import Process
from tests.agent_programs import APIS, CLAUDE, CODEX, GEMINI, OPENCODE, QWEN, AgentProgram, programs
from tests.logs import events, words
from tests.pipeline.worlds import World

pytestmark = pytest.mark.timeout(180)

Put = Callable[[str], Path]
CONFINED = [pytest.mark.needs_bubblewrap, pytest.mark.on_sqlite]
SAYS_VERSION = 'if [ "$1" = --version ]; then echo "{0} (Claude Code)"; exit 0; fi\n'


@pytest.fixture
def world(tmp_path: Path, settings: Settings, transactional_db: None) -> Iterator[World]:
    settings.HUSKIES_HOME = tmp_path / "data"
    settings.HUSKIES_NO_QUEUE = True
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts a shell script in the place of the `claude` program."""

    def write(text: str) -> Path:
        path = tmp_path / "claude"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        monkeypatch.setenv("HUSKIES_CLAUDE", str(path))
        return path

    return write


def checked(world: World, name: str = "claude-code") -> RuntimeCheck:
    preflight.check(name, actor=SERVER)
    world.server.idle()
    return RuntimeCheck.objects.select_related("process").get(host=conf.host(), runtime=name)


@programs(CLAUDE, CODEX, GEMINI, long=(QWEN, OPENCODE, *APIS))
def test_the_real_program_is_fit_and_flags_parser_and_sandbox_are_proved(
    program: AgentProgram, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program.variable:
        monkeypatch.setenv(program.variable, str(program.find()))
    row = checked(world, program.runtime)
    assert (row.state, row.reason, row.remedy, row.warning) == ("fit", "", "", ""), row.sentence
    assert row.proved == {"flags": True, "parser": True, "sandbox": True}
    assert row.version and row.path and row.seconds and row.checked_at and not row.logged_in
    kinds = {event.kind for event in events(row.process)}
    assert {"started", "tool_start", "tool_end", "text", "usage", "ended"} <= kinds
    assert (row.process.project, row.process.kind) == (None, "preflight")
    log = words(row.process)
    secret = (preflight.scratch(row.process.key) / "canary").read_text()
    assert (
        len(secret) == 32
        and secret not in log
        and not (preflight.scratch(row.process.key) / "planted").exists()
    )


@pytest.mark.needs_claude
@pytest.mark.on_sqlite
def test_without_bubblewrap_what_may_edit_files_only_is_tried_so(
    world: World, claude_program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUSKIES_CLAUDE", str(claude_program))
    monkeypatch.setenv("HUSKIES_CODEX", "/bin/true")
    monkeypatch.setattr(
        preflight.confine, "level_available", lambda: preflight.confine.Level("none", "It is missing.")
    )
    row = checked(world)
    assert (row.state, row.sentence) == ("fit", "") and row.proved["sandbox"]
    assert "edits only" in row.warning
    codex = preflight.check("codex", actor=SERVER)
    assert (codex.state, "needs bubblewrap" in codex.reason) == ("unfit", True)
    command = preflight.check("command", actor=SERVER)
    assert (command.state, command.remedy) == ("unfit", "It is missing.")


def test_a_program_that_is_not_there_is_unfit_at_once_with_the_remedy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUSKIES_CODEX", "/nowhere/codex")
    row = preflight.check("codex", actor=SERVER)
    assert (row.state, row.process, row.path) == ("unfit", None, "")
    assert "Codex" in row.reason and "HUSKIES_CODEX" in row.remedy


@pytest.mark.needs_bubblewrap
@pytest.mark.on_sqlite
def test_a_program_that_renamed_a_flag_is_unfit_in_its_own_words(world: World, put: Put) -> None:
    put(SAYS_VERSION.format("2.1.330") + "echo \"error: unknown option '--verbose'\" >&2; exit 1\n")
    row = checked(world)
    assert row.state == "unfit" and "unknown option '--verbose'" in row.reason
    assert RUNTIMES["claude-code"].tested in row.remedy and "runtime check" in row.remedy
    assert (row.version, row.proved) == ("2.1.330", {"flags": False, "parser": False, "sandbox": False})


@pytest.mark.needs_claude
@pytest.mark.needs_bubblewrap
@pytest.mark.on_sqlite
def test_another_version_is_a_warning_where_the_run_proves_it(
    world: World, put: Put, claude_program: Path
) -> None:
    put(SAYS_VERSION.format("1.0.3") + f'exec "{claude_program}" "$@"\n')
    row = checked(world)
    assert (row.state, row.reason) == ("fit", "")
    assert (
        row.warning == f"Version 1.0.3 is none of those that were tested ({RUNTIMES['claude-code'].tested})."
    )


@pytest.mark.needs_bubblewrap
@pytest.mark.on_sqlite
def test_a_version_that_is_too_old_and_does_not_work_is_named_in_the_remedy(world: World, put: Put) -> None:
    put(SAYS_VERSION.format("1.0.3") + "echo no such mode >&2; exit 2\n")
    row = checked(world)
    assert row.state == "unfit" and "no such mode" in row.reason and "Version 1.0.3 is none" in row.remedy


@pytest.mark.needs_bubblewrap
@pytest.mark.on_sqlite
def test_a_program_that_hangs_is_ended_and_unfit(
    world: World, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_conf, "PREFLIGHT_SECONDS", 2.0)
    put(SAYS_VERSION.format("2.1.330") + "echo Do you trust this folder?; exec sleep 600\n")
    row = checked(world)
    assert row.state == "unfit" and "did not come to an end" in row.reason
    assert "asked its provider nothing" in row.reason and "Do you trust this folder?" in row.reason
    assert row.version == "2.1.330"


@pytest.mark.needs_claude
@pytest.mark.needs_bubblewrap
@pytest.mark.on_sqlite
def test_a_program_whose_output_changed_is_unfit(world: World, put: Put, claude_program: Path) -> None:
    put(
        SAYS_VERSION.format("2.1.330")
        + f'"{claude_program}" "$@" | sed -u \'s/"tool_result"/"outcome_of_tool"/g\'\n'
    )
    row = checked(world)
    assert (
        row.state == "unfit" and row.reason == "Its output is not understood: nothing was heard of tool_end."
    )
    assert row.proved == {"flags": True, "parser": False, "sandbox": True}


@pytest.mark.needs_bubblewrap
@pytest.mark.on_sqlite
def test_a_check_that_could_not_be_made_says_nothing_of_the_program(
    world: World, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(SAYS_VERSION.format("2.1.330"))
    monkeypatch.setattr("agents.services.preflight_run.TRIAL", Path("/nowhere/trial.py"))
    row = checked(world)
    assert row.state == "unknown" and "could not be made" in row.reason


def test_asked_twice_it_is_checked_once(world: World, put: Put) -> None:
    put("exit 1\n")
    first, second = (preflight.check("claude-code", actor=SERVER) for _ in "12")
    assert first.process == second.process and Process.objects.filter(kind="preflight").count() == 1
