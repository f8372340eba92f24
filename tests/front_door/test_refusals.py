"""What is missing is said at once, in one sentence with the remedy, and nothing is made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.front_door.doorstep import REAL_PYTHON, ROOT, Doorstep

NO_ENSUREPIP = f"""
case $* in *'import ensurepip'*) exit 1 ;; esac
exec "{REAL_PYTHON}" "$@"
"""


def assert_refused(result: subprocess.CompletedProcess[str], doorstep: Doorstep, *parts: str) -> None:
    assert result.returncode != 0
    assert result.stdout == ""
    assert result.stderr.startswith("huskies: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr
    assert not (doorstep.tree / ".venv").exists()


def test_a_missing_git_is_named_with_its_remedy(doorstep: Doorstep) -> None:
    doorstep.take("git")
    assert_refused(doorstep.call("up"), doorstep, "git was not found", "apt-get install git")


def test_a_missing_git_is_noticed_after_the_install_too(doorstep: Doorstep) -> None:
    assert doorstep.call("up").returncode == 0
    doorstep.take("git")
    assert "git was not found" in doorstep.call("up").stderr


def test_no_python_at_all_is_named_with_its_remedy(doorstep: Doorstep) -> None:
    doorstep.take("python3")
    assert_refused(doorstep.call("up"), doorstep, "3.11 or newer", "apt-get install python3 python3-venv")


def test_an_old_python_is_named_with_its_version(doorstep: Doorstep) -> None:
    doorstep.put("python3", "echo 3 9")
    assert_refused(doorstep.call("up"), doorstep, "3.11 or newer", "python3 is 3.9", "apt-get install")


def test_a_python_without_venv_module_is_named_with_the_package(doorstep: Doorstep) -> None:
    doorstep.take("uv")
    doorstep.put("python3", NO_ENSUREPIP)
    assert_refused(doorstep.call("up"), doorstep, "lacks its venv module", "apt-get install python3-venv")


def test_a_python_without_sqlite_is_named(doorstep: Doorstep) -> None:
    body = f"""case $* in *'import sqlite3'*) exit 1 ;; esac\nexec "{REAL_PYTHON}" "$@" """
    doorstep.put("python3", body)
    assert_refused(doorstep.call("up"), doorstep, "sqlite3", "try again")


def test_a_python_chosen_by_hand_is_not_replaced_by_another(doorstep: Doorstep) -> None:
    doorstep.environment["HUSKIES_PYTHON"] = "python-of-nowhere"
    assert_refused(doorstep.call("up"), doorstep, "python-of-nowhere")


def test_a_folder_that_cannot_be_written_is_named(doorstep: Doorstep, tmp_path: Path) -> None:
    # A file where a folder should be stops root as well, which permissions would not.
    (tmp_path / "file").write_text("")
    doorstep.environment["HUSKIES_VENV"] = str(tmp_path / "file" / "venv")
    assert_refused(doorstep.call("up"), doorstep, "cannot be written by", "Make it writable")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(doorstep: Doorstep) -> None:
    doorstep.tree.chmod(0o555)
    try:
        assert_refused(doorstep.call("up"), doorstep, "cannot be written by", "Make it writable")
    finally:
        doorstep.tree.chmod(0o755)


def test_help_needs_nothing(doorstep: Doorstep) -> None:
    for program in ("git", "python3", "uv"):
        doorstep.take(program)
    for words in ([], ["--help"]):
        result = doorstep.call(*words)
        assert result.returncode == 0
        assert "./huskies up" in result.stdout
        assert "./huskies test" in result.stdout


def test_manage_py_without_django_says_to_use_the_script() -> None:
    # -S leaves site-packages out, as a system Python has none of ours.
    result = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "manage.py"), "up"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "Use ./huskies" in result.stderr
    assert "Traceback" not in result.stderr
