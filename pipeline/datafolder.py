"""The one data folder: private, and with random secrets that are made once and never change by accident."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from pipeline.processes.runfolder import sync_folder, write_durably

SECRET_KEY = "secret.key"  # noqa: S105  # the file's name
FOLDERS = ("runs", "control", "copies", "sessions", "trash")


class FolderUnusable(Exception):
    """The data folder cannot be used."""


def prepare(home: Path) -> None:
    """Make the folder and its rooms, all 0700. Raises FolderUnusable with the remedy."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        for name in FOLDERS:
            (home / name).mkdir(mode=0o700, exist_ok=True)
        write_durably(str(home), ".writable", b"")
        (home / ".writable").unlink()
    except OSError as error:
        raise FolderUnusable(
            f"The data folder {home} cannot be used ({error.strerror}). Make it writable for this user, or name another "
            "folder in HUSKIES_HOME, and try again."
        ) from error


def make_secret(path: Path, text: str) -> bool:
    """Write a secret (0600) if there is none yet; False when there is. Of two writers at once, one wins whole."""
    part = f"{path.name}.{secrets.token_hex(8)}"
    write_durably(str(path.parent), part, text.encode())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(path.parent / part, path)
            sync_folder(str(path.parent))
            return True
    finally:
        (path.parent / part).unlink()
    return False


def make_secret_key(home: Path) -> bool:
    """Django's SECRET_KEY, which settings read at the next start. True when it was made just now."""
    path = home / SECRET_KEY
    return not path.exists() and make_secret(path, secrets.token_urlsafe(64) + "\n")
