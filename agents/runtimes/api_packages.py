"""The packages of the direct-API runtimes' agent: 175 MB that most servers do not need, so they are installed only when somebody asks.

They stand in a folder of their own beside the server's, named by the lock that they were installed from: complete or not there at all. The
agent sees nothing else, and the server never imports them. What is installed is what the lock's hashes say.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from pipeline.processes.confine import CERTIFICATES, PROXIES
from pipeline.processes.probe import ask_program

LOCK = Path(__file__).resolve().parents[2] / "requirements-api.lock"
PACKAGE = "pydantic_ai_slim"
INSTALL_SECONDS = 1200.0
COMMAND = "./huskies runtime install api"
# What an installer may be told by: its own settings, and how to get out.
TOLD_BY = ("PATH", "HOME", "TMPDIR", "LANG", *PROXIES, *CERTIFICATES)
INSTALLERS = ("PIP_", "UV_")


class NotInstalled(RuntimeError):
    """The message says what the installer said and what to do."""


def folder() -> Path:
    """Where they stand when they are installed."""
    mark = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    return Path(sys.prefix) / "api-packages" / mark


def installed() -> Path | None:
    found = folder()
    return found if found.is_dir() else None


def installed_version() -> str | None:
    """The version of pydantic-ai, as its package says."""
    found = next(folder().glob(f"{PACKAGE}-*.dist-info"), None)
    return found.name.removeprefix(f"{PACKAGE}-").removesuffix(".dist-info") if found else None


def install() -> Path:
    """Where they stand now; does nothing when they do. Raises NotInstalled."""
    target = folder()
    if target.is_dir():
        return target
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(exist_ok=True)
        answer = ask_program(_installer(part), env=_environment(), timeout=INSTALL_SECONDS)
        if answer.code != 0:
            said = answer.problem or answer.err.strip()[-1500:] or f"It ended with exit code {answer.code}."
            raise NotInstalled(f"{LOCK.name} could not be installed. {said}")
        try:
            part.rename(target)
        except OSError:
            if not target.is_dir():  # else another command was faster
                raise
    except OSError as error:
        raise NotInstalled(f"{target} could not be made: {error.strerror}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def outdated() -> list[Path]:
    """What was installed from earlier locks; agents at work may still need it."""
    current = folder()
    return sorted(one for one in current.parent.glob("*") if one != current and one.suffix != ".part")


def _installer(target: Path) -> list[str]:
    common = ["--no-deps", "--require-hashes", "-r", str(LOCK), "--target", str(target)]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "-q", "--compile-bytecode", "--python", sys.executable, *common]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
    return [*pip, *common]


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in TOLD_BY if name in os.environ}
    return kept | {name: value for name, value in os.environ.items() if name.startswith(INSTALLERS)}
