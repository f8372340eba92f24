"""What a test may need beyond Python and git, whether it is here, and how to get it.

A test says `@pytest.mark.needs_bubblewrap` (or another marker of the table) and is skipped with the reason
where that is missing. With HUSKIES_TEST_REQUIRE=all in the environment, as in CI, the skip is a failure.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests import databases
from tests.agent_programs import AGENT_PROGRAMS, CLAUDE, AgentProgram


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


def of_program(program: AgentProgram) -> Need:
    where, how = (
        (
            "in claude-agent-sdk",
            ".venv/bin/python -m pip install --no-deps --require-hashes -r requirements-agents.lock",
        )
        if program == CLAUDE
        else (
            "among the programs of npm",
            "copy tests/programs/*.json to .venv/agent-programs and run npm install --no-save --ignore-scripts there",
        )
    )
    return Need(
        program.marker,
        f"the {program.title} program",
        lambda: None if program.find() else f"it was found neither {where} nor on PATH",
        f"Install it ({how}), or name it in {program.variable}",
    )


def api_obstacle() -> str | None:
    from agents.runtimes import api_packages  # here: this file must be read where there is only Python

    return None if api_packages.installed() else "they are not installed"


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
    *map(of_program, AGENT_PROGRAMS),
    Need(
        "needs_api",
        "the packages of the direct-API runtimes",
        api_obstacle,
        "Install them (./huskies runtime install api)",
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
