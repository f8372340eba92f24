"""What a test may need beyond Python and git, whether it is here, and how to get it.

A test says `@pytest.mark.needs_bubblewrap` (or another marker of the table) and is skipped with the reason
where that is missing. With HUSKIES_TEST_REQUIRE=all in the environment, as in CI, the skip is a failure.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests import databases


@dataclass(frozen=True)
class Need:
    """One thing that a machine may lack; `obstacle` says what stands in the way, or None when it is here."""

    marker: str
    thing: str
    obstacle: Callable[[], str | None]
    remedy: str

    @property
    def skip_prefix(self) -> str:
        return f"needs {self.thing}: "

    def missing(self) -> str | None:
        """The reason to skip, as a sentence with the remedy, or None."""
        obstacle = self.obstacle()
        return obstacle and f"{self.skip_prefix}{obstacle}. {self.remedy}."


@cache
def bubblewrap_obstacle() -> str | None:
    if shutil.which("bwrap") is None:
        return "bwrap is not on PATH"
    # Installed is not enough: containers and hardened kernels refuse unprivileged namespaces.
    attempt = subprocess.run(
        ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return (
        None if attempt.returncode == 0 else f"bwrap cannot make namespaces here ({attempt.stderr.strip()})"
    )


@cache
def find_claude() -> Path | None:
    """The Claude Code program: HUSKIES_CLAUDE, else the one in claude-agent-sdk's wheel, else on PATH."""
    if named := os.environ.get("HUSKIES_CLAUDE"):
        return Path(named) if os.access(named, os.X_OK) else None
    package = find_spec("claude_agent_sdk")
    for folder in (package.submodule_search_locations or []) if package else []:
        bundled = Path(folder) / "_bundled" / "claude"
        if os.access(bundled, os.X_OK):
            return bundled
    on_path = shutil.which("claude")
    return Path(on_path) if on_path else None


def find_from_npm(name: str, variable: str) -> Path | None:
    """A program of tests/programs: named by `variable`, else where .ci/run installs it, else on PATH."""
    if named := os.environ.get(variable):
        return Path(named) if os.access(named, os.X_OK) else None
    installed = Path(sys.prefix, "agent-programs", "node_modules", ".bin", name)
    if os.access(installed, os.X_OK):
        return installed
    on_path = shutil.which(name)
    return Path(on_path) if on_path else None


@cache
def find_codex() -> Path | None:
    return find_from_npm("codex", "HUSKIES_CODEX")


@cache
def find_gemini() -> Path | None:
    return find_from_npm("gemini", "HUSKIES_GEMINI")


def npm_remedy(variable: str) -> str:
    return (
        "Install it (copy tests/programs/*.json to .venv/agent-programs and run npm ci --ignore-scripts there), "
        f"or name it in {variable}"
    )


@cache
def find_chromium() -> Path | None:
    """Chromium or Chrome: HUSKIES_CHROMIUM, else by its usual names on PATH."""
    if named := os.environ.get("HUSKIES_CHROMIUM"):
        return Path(named) if os.access(named, os.X_OK) else None
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return Path(path)
    return None


NEEDS = (
    Need(
        "needs_postgresql",
        "PostgreSQL",
        databases.postgresql_obstacle,
        "Install and start it (apt-get install postgresql), or name a server where databases may be made in "
        "HUSKIES_TEST_POSTGRESQL",
    ),
    Need(
        "needs_browser",
        "a browser",
        lambda: None if find_chromium() else "no Chromium was found",
        "Install it (apt-get install chromium), or name it in HUSKIES_CHROMIUM",
    ),
    Need(
        "needs_claude",
        "the Claude Code program",
        lambda: None if find_claude() else "it was found neither in claude-agent-sdk nor on PATH",
        "Install it (.venv/bin/python -m pip install --no-deps --require-hashes -r "
        "requirements-agents.lock), or name it in HUSKIES_CLAUDE",
    ),
    Need(
        "needs_codex",
        "the Codex program",
        lambda: None if find_codex() else "it was found neither among the programs of npm nor on PATH",
        npm_remedy("HUSKIES_CODEX"),
    ),
    Need(
        "needs_gemini",
        "the Gemini CLI program",
        lambda: None if find_gemini() else "it was found neither among the programs of npm nor on PATH",
        npm_remedy("HUSKIES_GEMINI"),
    ),
    Need(
        "needs_bubblewrap",
        "bubblewrap",
        bubblewrap_obstacle,
        "Install it (apt-get install bubblewrap), on a kernel that allows user namespaces",
    ),
)


def everything_is_required() -> bool:
    return os.environ.get("HUSKIES_TEST_REQUIRE") == "all"


def need_behind(reason: str) -> Need | None:
    """The need that a skip's reason names, whoever wrote the reason."""
    return next((need for need in NEEDS if need.skip_prefix in reason), None)
