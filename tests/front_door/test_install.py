"""When the packages are installed, into what, and what an interruption leaves behind."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.front_door.doorstep import REAL_PYTHON, ROOT, UV, Doorstep


def test_the_first_command_installs_the_run_lock_and_the_second_installs_nothing(doorstep: Doorstep) -> None:
    first = doorstep.call("up")
    assert first.returncode == 0, first.stderr
    assert doorstep.installed() == ["requirements.lock"]
    second = doorstep.call("story", "list")
    assert (second.returncode, second.stderr) == (0, "")
    assert doorstep.installed() == ["requirements.lock"]


def test_words_and_folder_reach_manage_py_unchanged_in_the_venv(doorstep: Doorstep, tmp_path: Path) -> None:
    result = doorstep.call("story", "create", "a title; with $signs and 'quotes'", "", cwd=tmp_path)
    answer = json.loads(result.stdout)
    assert answer["words"] == ["story", "create", "a title; with $signs and 'quotes'", ""]
    assert answer["cwd"] == str(tmp_path)
    assert answer["prefix"] == str(doorstep.tree / ".venv")


@pytest.mark.parametrize("relative", [False, True])
def test_it_is_called_through_a_symlink_from_elsewhere(
    doorstep: Doorstep, tmp_path: Path, relative: bool
) -> None:
    script = doorstep.tree / "huskies"
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(os.path.relpath(script, link.parent) if relative else script)
    second_link = tmp_path / "second"
    second_link.symlink_to("elsewhere/link")
    result = doorstep.call("up", script=second_link, cwd=Path("/"))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["prefix"] == str(doorstep.tree / ".venv")


def test_a_changed_lock_is_installed_again_into_the_same_venv(doorstep: Doorstep) -> None:
    doorstep.call("up")
    kept = doorstep.tree / ".venv" / "kept"
    kept.touch()
    (doorstep.tree / "requirements.lock").write_text("run==2\n")
    doorstep.call("up")
    doorstep.call("up")
    assert doorstep.installed() == ["requirements.lock", "requirements.lock"]
    assert kept.exists()


def test_test_adds_the_dev_lock_and_up_is_content_with_it(doorstep: Doorstep) -> None:
    doorstep.call("up")
    doorstep.call("test")
    doorstep.call("test")
    doorstep.call("up")
    assert doorstep.installed() == ["requirements.lock", "requirements-dev.lock"]


def test_a_changed_dev_lock_does_not_concern_up(doorstep: Doorstep) -> None:
    doorstep.call("test")
    (doorstep.tree / "requirements-dev.lock").write_text("run==1\ndev==2\n")
    doorstep.call("up")
    assert doorstep.installed() == ["requirements-dev.lock"]
    doorstep.call("test")
    assert doorstep.installed() == ["requirements-dev.lock", "requirements-dev.lock"]


@pytest.mark.parametrize("word", ["up", "test"])
def test_an_interrupted_install_is_made_anew_by_the_next_command(doorstep: Doorstep, word: str) -> None:
    doorstep.put("uv", f'{UV}\n: >"$HALF"\nkill -KILL $PPID')
    half = doorstep.tree / ".venv" / "half-a-package"
    doorstep.environment["HALF"] = str(half)
    assert doorstep.call(word).returncode == -9
    assert half.exists()
    doorstep.put("uv", UV)
    assert doorstep.call(word).returncode == 0
    assert not half.exists()
    assert len(doorstep.installed()) == 2


def test_an_interrupted_renewal_is_made_anew_too(doorstep: Doorstep) -> None:
    doorstep.call("up")
    doorstep.put("uv", f'{UV}\n: >"$HALF"\nkill -KILL $PPID')
    half = doorstep.tree / ".venv" / "half-a-package"
    doorstep.environment["HALF"] = str(half)
    (doorstep.tree / "requirements.lock").write_text("run==2\n")
    assert doorstep.call("up").returncode == -9
    doorstep.put("uv", UV)
    # Even back at the old lock: the venv is neither the old one nor the new.
    (doorstep.tree / "requirements.lock").write_text("run==1\n")
    assert doorstep.call("up").returncode == 0
    assert not half.exists()


def test_a_failed_install_says_so_and_the_next_command_tries_again(doorstep: Doorstep) -> None:
    doorstep.put("uv", "echo 'no route to the index' >&2; exit 2")
    failed = doorstep.call("up")
    assert failed.returncode == 1
    assert "no route to the index" in failed.stderr
    assert "could not be installed" in failed.stderr.splitlines()[-1]
    doorstep.put("uv", UV)
    assert doorstep.call("up").returncode == 0


def test_a_venv_whose_python_is_gone_is_made_anew(doorstep: Doorstep) -> None:
    doorstep.call("up")
    python = doorstep.tree / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("a-python-that-was-upgraded-away")
    assert doorstep.call("up").returncode == 0
    assert len(doorstep.installed()) == 2


def test_two_commands_at_once_install_once(doorstep: Doorstep, tmp_path: Path) -> None:
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    os.mkfifo(started)
    os.mkfifo(go_on)
    doorstep.environment |= {"STARTED": str(started), "GO_ON": str(go_on)}
    doorstep.put("uv", f'{UV}\n: >"$STARTED"\nread -r _ <"$GO_ON"')
    with doorstep.start("up") as first:
        with started.open():
            pass  # the first is inside its install
        with doorstep.start("up") as second:
            go_on.write_text("on\n")
            for child in (first, second):
                _, errors = child.communicate(timeout=60)
                assert child.returncode == 0, errors
    assert doorstep.installed() == ["requirements.lock"]


def test_a_newer_python_is_taken_and_a_name_that_does_not_run_is_passed_over(doorstep: Doorstep) -> None:
    # pyenv puts python3.13 on PATH for versions that it then refuses to run.
    doorstep.put("python3.13", "echo 'not the chosen version' >&2; exit 127")
    doorstep.put("python3", "echo 3 9")
    doorstep.put("python3.11", f'exec "{REAL_PYTHON}" "$@"')
    result = doorstep.call("up")
    assert result.returncode == 0, result.stderr


def test_without_uv_pip_is_called_with_hashes(doorstep: Doorstep) -> None:
    doorstep.take("uv")
    # The real venv, and a pip that only writes down how it was called.
    doorstep.put(
        "python3",
        f'''
case $* in
    *'-m venv'*)
        "{REAL_PYTHON}" -m venv --without-pip "$VENV"
        rm "$VENV/bin/python"
        cp "$0" "$VENV/bin/python" ;;
    *'pip install'*) printf '%s\\n' "$*" >>"$INSTALLS" ;;
    *'pip --version'*) ;;
    *) exec "{REAL_PYTHON}" "$@" ;;
esac''',
    )
    doorstep.environment["VENV"] = str(doorstep.tree / ".venv")
    result = doorstep.call("up")
    assert result.returncode == 0, result.stderr
    assert "--require-hashes" in doorstep.installs.read_text()
    assert doorstep.call("up").stderr == ""


@pytest.mark.long
def test_the_real_locks_install_on_a_fresh_copy_of_the_tree(tmp_path: Path) -> None:
    """Needs the network or a package index that pip is set to."""
    tree = tmp_path / "a fresh copy"
    tree.mkdir()
    for name in ("huskies", "manage.py", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tree)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HUSKIES_", "DJANGO_"))
    }
    for word, importable in (
        ("version", "daphne, django_q, psycopg"),
        ("test", "pytest, hypothesis, playwright"),
    ):
        subprocess.run([tree / "huskies", word], env=environment, capture_output=True, check=False)
        imported = subprocess.run([tree / ".venv/bin/python", "-c", f"import {importable}"], check=False)
        assert imported.returncode == 0
        assert (tree / ".venv/bin/pytest").exists() == (word == "test")
