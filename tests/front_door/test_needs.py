"""What a machine lacks is skipped with its reason and counted; where everything is required it fails."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.front_door.doorstep import ROOT

SAMPLE = """
import random
import pytest

@pytest.mark.needs_bubblewrap
def test_in_a_sandbox(): pass

@pytest.mark.needs_bubblewrap
def test_in_another_sandbox(): pass

@pytest.mark.needs_claude
def test_of_the_program(claude_program): assert claude_program.exists()

@pytest.mark.needs_postgresql
def test_on_a_server(postgresql_url): assert postgresql_url

@pytest.mark.needs_browser
def test_of_a_page(chromium_program): assert chromium_program.exists()

@pytest.mark.long
def test_at_full_size(): pass

@pytest.mark.on_postgresql
def test_of_the_other_database(): pass

def test_at_random(seed): print("drew", random.Random(seed).random())

@pytest.mark.skip(reason="something else")
def test_of_something_else(): pass
"""


def run_sample(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the sample in a small tree with our conftest, on a machine that has only Python."""
    tests = folder / "tests"
    if not tests.exists():
        tests.mkdir()
        for name in ("conftest.py", "needs.py", "agent_programs.py", "databases.py"):
            shutil.copy(ROOT / "tests" / name, tests)
        (tests / "test_sample.py").write_text(SAMPLE)
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HUSKIES_", "PYTEST_", "DJANGO_"))
    }
    nothing = {
        "PATH": str(folder),
        "HUSKIES_CLAUDE": str(folder / "no-claude"),
        "HUSKIES_TEST_POSTGRESQL": "postgresql://nobody:a-password@127.0.0.1:1/none",
    }
    options = (
        "-o addopts= -o pythonpath= --import-mode=importlib -p no:django -p no:cacheprovider -rA".split()
    )
    places: list[str | Path] = ["-c", ROOT / "pyproject.toml", "--rootdir", folder, tests]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *places, *words],
        cwd=folder,
        env={**clean, **nothing, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("spread", [(), ("-n", "2")])
def test_the_closing_lines_count_what_was_skipped_for_lack_of_what(
    tmp_path: Path, spread: tuple[str, ...]
) -> None:
    result = run_sample(tmp_path, *spread)
    assert result.returncode == 0, result.stdout + result.stderr
    *_, summary = result.stdout.strip().splitlines()
    assert "1 passed, 8 skipped" in summary
    assert "Skipped here: 2 tests need bubblewrap (bwrap is not on PATH. Install it (apt-get" in result.stdout
    assert (
        "Skipped here: 1 test needs PostgreSQL (no server answers (postgresql://127.0.0.1:1/none"
        in result.stdout
    )
    assert "Skipped here: 1 test needs a browser" in result.stdout
    assert "Skipped here: 1 test needs the Claude Code program" in result.stdout
    assert "Left for ./huskies test --long: 1 test" in result.stdout
    assert "Left for the run on the other database: 1 test" in result.stdout
    assert "a-password" not in result.stdout


def test_where_everything_is_required_a_lack_is_a_failure(tmp_path: Path) -> None:
    result = run_sample(tmp_path, HUSKIES_TEST_REQUIRE="all")
    assert result.returncode == 1
    assert "1 passed, 3 skipped, 5 errors" in result.stdout
    assert "HUSKIES_TEST_REQUIRE=all, but this test" in result.stdout


def test_a_plain_run_draws_the_same_numbers_each_time_and_a_long_one_prints_its_seed(tmp_path: Path) -> None:
    def drawn(*words: str, **environment: str) -> tuple[str, str]:
        out = run_sample(tmp_path, *words, **environment).stdout
        number, seed = re.search(r"drew (\S+)", out), re.search(r"^seed: (\d+)", out, re.M)
        assert number is not None and seed is not None, out
        return number[1], seed[1]

    assert drawn() == drawn("-n", "2")
    number, seed = drawn("--long")
    assert drawn() != (number, seed)
    assert drawn(HUSKIES_TEST_SEED=seed) == (number, seed)


def test_long_runs_the_long_tests(tmp_path: Path) -> None:
    assert "2 passed, 7 skipped" in run_sample(tmp_path, "--long").stdout


def test_an_unknown_database_is_refused_by_name(tmp_path: Path) -> None:
    result = run_sample(tmp_path, HUSKIES_TEST_DATABASE="oracle")
    assert result.returncode != 0
    assert "HUSKIES_TEST_DATABASE=oracle" in result.stdout + result.stderr
