"""`./huskies test`: which pytest it calls, and on which Pythons."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from huskies_site.management.commands import test as test_command
from tests.front_door.doorstep import ROOT


def test_one_worker_per_core_unless_the_words_say_otherwise() -> None:
    assert test_command.pytest_command(["tests/x"])[1:] == ["-m", "pytest", "-n", "auto", "tests/x"]
    assert test_command.pytest_command(["-n0", "tests/x"])[1:] == ["-m", "pytest", "-n0", "tests/x"]
    assert test_command.pytest_command(["--pdb"])[1:] == ["-m", "pytest", "--pdb"]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose PATH and pyenv hold only what the test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def put(program: Path, body: str) -> None:
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def test_newer_pythons_are_found_on_path_and_in_pyenv_if_they_run(machine: Path) -> None:
    put(machine / "python3.12", "echo 'not the chosen version' >&2; exit 127")
    put(machine / "pyenv/versions/3.12.1/bin/python", "echo 3.12")
    put(machine / "python3.13", "echo 3.13")
    put(machine / "python3.14", "echo 3.11")
    assert test_command.newer_pythons((3, 11)) == {
        "3.12": str(machine / "pyenv/versions/3.12.1/bin/python"),
        "3.13": "python3.13",
    }
    assert test_command.newer_pythons((3, 12)) == {"3.13": "python3.13"}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put programs that write down how they were called in the place of ./huskies and of this Python."""
    log = tmp_path / "calls"
    for name, code in (("huskies", 3), ("python", 0)):
        put(
            tmp_path / "tree" / name,
            f'echo "{name} $* venv=${{HUSKIES_VENV-}} seed=$HUSKIES_TEST_SEED" >>"{log}"\n'
            f"echo '{json.dumps({'passed': 2, 'failed': code, 'skipped': 1})}' >\"$HUSKIES_TEST_COUNTS\"\n"
            f"exit {code}",
        )
    monkeypatch.setattr(test_command, "ROOT", tmp_path / "tree")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "tree" / "python"))
    monkeypatch.setenv("HUSKIES_TEST_SEED", "7")
    return log


def test_long_runs_the_plain_suite_on_newer_pythons_and_the_long_one_here(
    machine: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(test_command, "NEWER_PYTHONS", ("3.98", "3.99"))
    put(machine / "python3.99", "echo 3.99")
    assert test_command.run_long(["--long", "-k", "a word"]) == 3
    assert calls.read_text().splitlines() == [
        f"huskies test -k a word venv={machine}/tree/.venvs/3.99 seed=7",
        "python -m pytest -n auto --long -k a word venv= seed=7",
    ]
    *_, newer, here, total = capfd.readouterr().out.splitlines()
    assert newer == "Python 3.99: 2 passed, 3 failed, 1 skipped"
    assert here.endswith(", long: 2 passed, 0 failed, 1 skipped")
    assert total == "4 passed, 3 failed, 2 skipped"


def test_long_says_so_when_no_newer_python_is_found(
    machine: Path, calls: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert test_command.run_long(["--long"]) == 0
    assert "No newer Python (3.12, 3.13, 3.14) was found" in capfd.readouterr().out


def test_tests_run_on_a_machine_whose_settings_are_wrong() -> None:
    wrong = {**os.environ, "HUSKIES_BIND": "nowhere"}
    result = subprocess.run(
        [sys.executable, ROOT / "manage.py", "test", "--version"],
        env=wrong,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("pytest ")


def test_a_wrong_setting_is_a_sentence_and_no_traceback() -> None:
    wrong = {**os.environ, "HUSKIES_BIND": "nowhere"}
    result = subprocess.run(
        [sys.executable, ROOT / "manage.py", "check"], env=wrong, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("huskies: HUSKIES_BIND='nowhere' is not host:port")
