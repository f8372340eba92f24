"""`./huskies test [--long] [words for pytest]`: the whole suite; --long adds full sizes and newer Pythons."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError

ROOT = Path(__file__).resolve().parents[3]
NEWER_PYTHONS = ("3.12", "3.13", "3.14")
COUNTED = ("passed", "failed", "skipped")
OWN_WAY = ("-n", "--numprocesses", "--pdb", "-h", "--help", "--version")


class Command(BaseCommand):
    help = (
        "Run the tests. --long: full sizes, random seeds, every newer Python found. Other words go to pytest."
    )
    requires_system_checks: tuple[str, ...] = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Take the words as they are: they are pytest's, and argparse would claim some of them."""
        try:
            code = run_tests(argv[2:])
        except CommandError as error:
            self.stderr.write(str(error))
            code = 1
        except KeyboardInterrupt:
            code = 130
        sys.exit(code)


def run_tests(words: list[str]) -> int:
    """Run the suite; return the exit code for the shell (0: all passed)."""
    if find_spec("pytest") is None:
        raise CommandError(
            "The tests cannot run: pytest is not installed beside Django. "
            "Use ./huskies test, which installs it."
        )
    os.chdir(ROOT)
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)  # set by manage.py; the tests have settings of their own
    if "--long" not in words:
        os.execv(sys.executable, pytest_command(words))  # noqa: S606  # the same program, a list, no shell
    return run_long(words)


def pytest_command(words: list[str]) -> list[str]:
    """The argument list of one pytest run: one worker per core unless the words say otherwise."""
    spread = [] if any(word.startswith(OWN_WAY) for word in words) else ["-n", "auto"]
    return [sys.executable, "-m", "pytest", *spread, *words]


def run_long(words: list[str]) -> int:
    """The plain suite on each newer Python, then the long one here; the last line counts all of it."""
    os.environ.setdefault("HUSKIES_TEST_SEED", str(secrets.randbelow(2**32)))
    plain = [word for word in words if word != "--long"]
    pythons = newer_pythons(sys.version_info[:2])
    if not pythons:
        looked_for = ", ".join(NEWER_PYTHONS)
        say(f"No newer Python ({looked_for}) was found on PATH or in pyenv: the tests run on this one only.")
    results: list[tuple[str, int, dict[str, int]]] = []
    with tempfile.TemporaryDirectory(prefix="huskies-test-") as folder:
        counts_file = Path(folder) / "counts.json"
        script = [str(ROOT / "huskies"), "test", *plain]
        runs = [(f"Python {name}", script, environment_of(name, path)) for name, path in pythons.items()]
        here = f"Python {sys.version_info[0]}.{sys.version_info[1]}, long"
        runs.append((here, pytest_command(words), dict(os.environ)))
        for name, command, environment in runs:
            say(f"==== {name} ====")
            counts_file.unlink(missing_ok=True)
            environment["HUSKIES_TEST_COUNTS"] = str(counts_file)
            code = subprocess.run(command, env=environment, check=False).returncode
            counts = json.loads(counts_file.read_text()) if counts_file.exists() else {}
            results.append((name, code, counts))
    for name, code, counts in results:
        say(f"{name}: {closing_line(counts) if counts else f'ended with code {code} before any test ran'}")
    say(closing_line({key: sum(counts.get(key, 0) for _, _, counts in results) for key in COUNTED}))
    return max((abs(code) for _, code, _ in results), default=0)


def environment_of(version: str, python: str) -> dict[str, str]:
    """The environment in which ./huskies makes and uses the venv of another Python."""
    return {**os.environ, "HUSKIES_PYTHON": python, "HUSKIES_VENV": str(ROOT / ".venvs" / version)}


def newer_pythons(current: tuple[int, int]) -> dict[str, str]:
    """The newer Pythons that really run here, version to path: from PATH, else from pyenv's folder."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found: dict[str, str] = {}
    for version in NEWER_PYTHONS:
        major, minor = version.split(".")
        if (int(major), int(minor)) <= current:
            continue
        for candidate in [f"python{version}", *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))]:
            if runs_as(candidate, version):
                found[version] = candidate
                break
    return found


def runs_as(candidate: str, version: str) -> bool:
    """Whether the program runs and is that version: pyenv puts names on PATH that it then refuses to run."""
    try:
        answer = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.strip() == version


def closing_line(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts.get(key, 0)} {key}" for key in COUNTED)


def say(line: str) -> None:
    print(line, flush=True)
