"""What a folder's files say about how its code is set up and tested: one function per kind of tool chain."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Folder:
    """The names right in a folder (a subfolder's paths too, relative to it) and the texts of some of these
    files."""

    paths: frozenset[str]
    contents: Mapping[str, str]

    def has(self, *names: str) -> bool:
        return any(name in self.paths for name in names)

    def has_file(self, name: str) -> bool:
        return name in self.paths and not any(path.startswith(f"{name}/") for path in self.paths)

    def says(self, name: str, pattern: str) -> bool:
        return re.search(pattern, self.contents.get(name, ""), re.MULTILINE) is not None


@dataclass(frozen=True, slots=True)
class Guess:
    """A way to test a folder. `why` is the file that tells; `test` None: only the set-up is known."""

    why: str
    test: str | None
    setup: tuple[str, ...] = ()
    remark: str = ""


Guesser = Callable[[Folder], Guess | None]


def guess_script(folder: Folder) -> Guess | None:
    """A script that the project's people made for this: the best source there is."""
    for name, command in (
        ("script/test", "./script/test"),
        ("scripts/test", "./scripts/test"),
        ("bin/test", "./bin/test"),
        ("huskies", "./huskies test"),
        ("test.sh", "sh test.sh"),
        ("run_tests.sh", "sh run_tests.sh"),
        ("runtests.sh", "sh runtests.sh"),
    ):
        if folder.has_file(name):
            return Guess(name, command)
    return None


def guess_targets(folder: Folder) -> Guess | None:
    """A target of make or just."""
    for name, program in (
        ("GNUmakefile", "make"),
        ("makefile", "make"),
        ("Makefile", "make"),
        ("justfile", "just"),
    ):
        for target in ("test", "tests", "check"):
            if folder.has(name) and folder.says(name, rf"^{target}\b[^:=\n]*:(?!=)"):
                return Guess(name, f"{program} {target}")
    return None


def guess_javascript(folder: Folder) -> Guess | None:
    """package.json: the lock file tells which package manager."""
    if not folder.has("package.json"):
        return None
    if folder.has("pnpm-lock.yaml"):
        program, install = "pnpm", "pnpm install --frozen-lockfile"
    elif folder.has("yarn.lock"):
        program, install = "yarn", "yarn install --frozen-lockfile"
    elif folder.has("bun.lock", "bun.lockb"):
        program, install = "bun run", "bun install --frozen-lockfile"
    else:
        locked = folder.has("package-lock.json", "npm-shrinkwrap.json")
        program, install = "npm", "npm ci" if locked else "npm install --no-package-lock"
    scripts = _scripts(folder.contents.get("package.json", ""))
    test = scripts.get("test", "")
    usable = bool(test.strip()) and "no test specified" not in test
    ignored = folder.says(".gitignore", r"node_modules")
    remark = "" if ignored else "Let git ignore node_modules, else it is committed."
    return Guess("package.json", f"{program} test" if usable else None, (install,), remark)


def guess_python(folder: Folder) -> Guess | None:
    """pyproject.toml, requirements.txt, setup.py, Pipfile or manage.py."""
    described = [name for name in ("pyproject.toml", "setup.py", "requirements.txt") if folder.has(name)]
    others = ("manage.py", "pytest.ini", "tox.ini", "conftest.py")
    tells = described + [name for name in others if folder.has(name)]
    if not tells:
        return None
    why = tells[0]
    if folder.has("uv.lock"):
        return Guess(why, f"uv run {_python_test(folder)}", ("uv sync",), _venv_remark(folder))
    if folder.has("poetry.lock"):
        return Guess(why, f"poetry run {_python_test(folder)}", ("poetry install",))
    test = _python_test(folder)
    installs = []
    for name in ("requirements.txt", "requirements-dev.txt", "dev-requirements.txt"):
        if folder.has(name):
            installs.append(f"-r {name}")
    if folder.has("setup.py") or folder.says("pyproject.toml", r"^\[(project|build-system|tool\.poetry)\]"):
        installs.append("-e .")
    named = any(folder.says(name, r"pytest") for name in folder.contents if "requirements" in name)
    if "pytest" in test and not named:
        installs.append("pytest")
    if not installs:
        return Guess(why, f"python3 {test.removeprefix('python ')}")
    # The .gitignore inside keeps the environment out of commits whatever the project ignores.
    setup = (
        "python3 -m venv .venv && echo '*' > .venv/.gitignore",
        f".venv/bin/python -m pip install {' '.join(installs)}",
    )
    return Guess(why, f".venv/bin/{test}", setup)


def guess_rust(folder: Folder) -> Guess | None:
    """Cargo.toml."""
    locked = " --locked" if folder.has("Cargo.lock") else ""
    return Guess("Cargo.toml", f"cargo test{locked}") if folder.has("Cargo.toml") else None


def guess_go(folder: Folder) -> Guess | None:
    """go.mod."""
    return Guess("go.mod", "go test ./...") if folder.has("go.mod") else None


def guess_others(folder: Folder) -> Guess | None:
    """Tool chains with one usual command."""
    for name, wrapper, command, setup in (
        ("pom.xml", "mvnw", "mvn --batch-mode verify", ()),
        ("build.gradle", "gradlew", "gradle --no-daemon check", ()),
        ("build.gradle.kts", "gradlew", "gradle --no-daemon check", ()),
        ("mix.exs", "", "mix test", ("mix deps.get",)),
        ("deno.json", "", "deno test", ()),
        ("Rakefile", "", "bundle exec rake" if folder.has("Gemfile") else "rake", ("bundle install",)),
        ("composer.json", "", "composer test", ("composer install --no-interaction",)),
    ):
        if folder.has(name):
            rest = command.partition(" ")[2]
            steps = setup if name != "Rakefile" or folder.has("Gemfile") else ()
            return Guess(name, f"./{wrapper} {rest}" if wrapper and folder.has(wrapper) else command, steps)
    return None


RUNNERS: tuple[Guesser, ...] = (guess_script, guess_targets)
"""Test the folder by a command that its people chose; say nothing of the set-up."""

TOOL_CHAINS: tuple[Guesser, ...] = (
    guess_python,
    guess_javascript,
    guess_rust,
    guess_go,
    guess_others,
)
"""Know the set-up, and a usual command for the tests."""


def _scripts(package: str) -> dict[str, str]:
    try:
        data = json.loads(package)
    except (ValueError, RecursionError):
        return {}
    scripts = data.get("scripts") if isinstance(data, dict) else None
    return {str(name): str(line) for name, line in scripts.items()} if isinstance(scripts, dict) else {}


def _python_test(folder: Folder) -> str:
    """The test command, starting with `python`."""
    files = ("pyproject.toml", "setup.cfg", "setup.py", "tox.ini", "requirements.txt", "requirements-dev.txt")
    mentioned = any(folder.says(name, r"\bpytest\b") for name in files)
    if mentioned or folder.has("pytest.ini", "conftest.py", "tests/conftest.py"):
        return "python -m pytest"
    if folder.has("manage.py"):
        return "python manage.py test"
    return "python -m unittest discover"


def _venv_remark(folder: Folder) -> str:
    return "" if folder.says(".gitignore", r"\.?venv") else "Let git ignore .venv, else it is committed."
