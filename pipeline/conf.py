"""Typed settings: folders and numbers that someone may want to turn."""

from __future__ import annotations

import secrets
from pathlib import Path

from django.conf import settings


def home() -> Path:
    return Path(settings.HUSKIES_HOME)


def host() -> str:
    return str(settings.HUSKIES_HOST)


def runs() -> Path:
    return home() / "runs"


def control_path(project_key: str) -> Path:
    """The bare control repository of a project."""
    return home() / "control" / f"{project_key}.git"


def copy_path(key: str) -> Path:
    return home() / "copies" / key


def trash_path(key: str) -> Path:
    return home() / "trash" / key


def session_path(key: str) -> Path:
    """The private home, tmp and config folders of one session."""
    return home() / "sessions" / key


def hidden() -> list[Path]:
    """What no agent and no gate may read: the data folder, and the settings file beside the code."""
    return [home(), Path(settings.BASE_DIR) / ".env"]


def new_key() -> str:
    """Twenty hex digits from the system's randomness: run folders, copies and refs carry these, never an id (rules.md)."""
    return secrets.token_hex(10)
