"""What the direct-API runtimes' agent runs with: one folder, whole or not there, by one command."""

import json
import stat
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from agents.runtimes import api_packages

# In uv's place: it says what it was asked, then makes what it was told to.
INSTALLER = """#!/bin/sh
printf '%s\\n' "$@" > "{seen}"
env > "{seen}.env"
for word; do last=$word; done
mkdir -p "$last/pydantic_ai_slim-9.8.7.dist-info"
echo "no such package" >&2
exit {code}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to be made, below one that is not there yet."""
    folder = tmp_path / "api-packages" / "0123456789ab"
    monkeypatch.setattr(api_packages, "folder", lambda: folder)
    return folder


def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> Path:
    program, seen = tmp_path / "bin" / "uv", tmp_path / "seen"
    program.parent.mkdir(exist_ok=True)
    program.write_text(INSTALLER.format(seen=seen, code=code))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return seen


def test_they_are_installed_by_hash_into_a_folder_that_is_there_only_when_it_is_whole(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUSKIES_SECRET_KEY", "canary")
    monkeypatch.setenv("UV_INDEX_URL", "https://packages.example/simple")
    seen = installer(tmp_path, monkeypatch)
    assert api_packages.installed() is None
    assert api_packages.install() == place == api_packages.installed()
    assert api_packages.installed_version() == "9.8.7"
    words = seen.read_text().split("\n")
    assert {"--require-hashes", "--no-deps", str(api_packages.LOCK)} <= set(words)
    environment = seen.with_name("seen.env").read_text()
    assert "canary" not in environment and "UV_INDEX_URL" in environment
    seen.unlink()
    api_packages.install()
    assert not seen.exists()  # there is nothing to do


def test_an_install_that_fails_leaves_nothing_and_says_why(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer(tmp_path, monkeypatch, code=1)
    with pytest.raises(api_packages.NotInstalled, match="no such package"):
        api_packages.install()
    assert list(place.parent.iterdir()) == []


def test_what_an_interrupted_install_left_does_not_count(place: Path) -> None:
    place.with_name(f"{place.name}.1.part").mkdir(parents=True)
    assert (api_packages.installed(), api_packages.outdated()) == (None, [])


@pytest.mark.django_db
def test_the_command_installs_them_and_takes_the_earlier_ones_away(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installer(tmp_path, monkeypatch)
    earlier = place.with_name("earlier")
    earlier.mkdir(parents=True)
    call_command("runtime", "install", "api")
    assert "pydantic-ai 9.8.7 is installed" in capsys.readouterr().out
    assert place.is_dir() and not earlier.exists()
    call_command("runtime", "install", "api", "--json")
    assert json.loads(capsys.readouterr().out) == {"folder": str(place), "version": "9.8.7"}


@pytest.mark.django_db
def test_the_commands_refusal_is_a_sentence(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer(tmp_path, monkeypatch, code=1)
    with pytest.raises(CommandError, match=r"could not be installed\. no such package .*try again"):
        call_command("runtime", "install", "api")


@pytest.mark.needs_api
def test_the_server_itself_never_imports_them() -> None:
    import sys

    assert api_packages.installed_version() == "2.62.0"
    assert not {"pydantic_ai", "openai", "anthropic"} & set(sys.modules)
