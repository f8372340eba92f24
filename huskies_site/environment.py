"""Settings come from the environment and from a `.env` file; these are the small readers that turn words into values."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")


def load_env_file(path: Path) -> None:
    """Put the lines `NAME=value` of a file into the environment; what is already there wins. A missing file is no error."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = LINE.match(line)
        if not found:
            raise ImproperlyConfigured(f"{path}:{number}: expected NAME=value; mend or remove this line.")
        name, value = found.groups()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        os.environ.setdefault(name, value)


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def integer(name: str, default: int, *, low: int = 0, high: int = 10**9) -> int:
    """A whole number within [low, high]; anything else is an error that names the setting."""
    raw = text(name)
    if not raw:
        return default
    try:
        value = int(raw)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise ImproperlyConfigured(
            f"{name}={raw!r} is not a whole number from {low} to {high}; correct it or remove it."
        )
    return value


def flag(name: str, default: bool = False) -> bool:
    raw = text(name).lower()
    if raw in ("1", "true", "yes", "on"):
        return True
    if raw in ("0", "false", "no", "off"):
        return False
    if raw:
        raise ImproperlyConfigured(f"{name}={raw!r} is neither yes nor no; correct it or remove it.")
    return default


def bind(raw: str) -> tuple[str, int]:
    """`host:port` -> (host, port); IPv6 hosts stand in brackets."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\[\]]+):(\d{1,5})", raw)
    if not found or int(found[2]) > 65535:
        raise ImproperlyConfigured(f"HUSKIES_BIND={raw!r} is not host:port, such as 127.0.0.1:8000.")
    return found[1].strip("[]"), int(found[2])


def database(url: str, home: Path) -> dict[str, Any]:
    """The value of Django's DATABASES["default"] for a DATABASE_URL; empty means SQLite in the data folder."""
    parts = urlsplit(url or f"sqlite:///{home / 'huskies.sqlite3'}")
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "huskies_site.sqlite",
            "NAME": unquote(parts.path.removeprefix("/") if parts.path.startswith("//") else parts.path),
        }
    if parts.scheme in ("postgresql", "postgres"):
        options = dict(parse_qsl(parts.query))
        host = options.pop("host", "") or (parts.hostname or "")
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.removeprefix("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": host,
            "PORT": str(parts.port or ""),
            "OPTIONS": options,
        }
    raise ImproperlyConfigured(
        f"DATABASE_URL begins with {parts.scheme!r}; huskies knows sqlite:///FILE and postgresql://USER:PASSWORD@HOST/NAME."
    )
