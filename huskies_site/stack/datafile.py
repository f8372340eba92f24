"""The SQLite file under a running server: replaced or removed, the parts would write into a file that nobody will read again."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings


class DataFile:
    """`changed()` compares what stands at the path now with what stood there at the start; other databases never change."""

    def __init__(self) -> None:
        database = settings.DATABASES["default"]
        self.path = Path(database["NAME"]) if database["ENGINE"] == "huskies_site.sqlite" else None
        self._first = self._now()

    def _now(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            found = os.stat(self.path)  # noqa: PTH116  (a stat opens nothing, and so breaks no lock of SQLite's)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def changed(self) -> str:
        """What happened to it as a sentence with the remedy, "" if nothing did."""
        now = self._now()
        if now == self._first:
            return ""
        what = "was removed" if now is None else "was replaced by another file"
        return (
            f"The database {self.path} {what} while the server ran. Everything is ended at once, so that nothing more is written into the old "
            "one; agents go on. Put the right file there (a backup is restored while the server is stopped), then start again."
        )
