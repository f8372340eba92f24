"""Kind `discard`: delete a working copy that is no longer needed, however large. `request`: `copy` (its key), `private` (its folders too)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import conf, kinds
from pipeline.git.control import unpin_base
from pipeline.handlers.chore import order
from pipeline.models import Process
from pipeline.processes.copies import move_to_trash
from pipeline.processes.crashpoint import crashpoint
from pipeline.services import processes

TIMEOUT = 3600.0  # seconds
TRIES = 3


class DiscardHandler(kinds.Handler):
    def spec(self, process: Process) -> dict[str, Any]:
        key = str(process.request["copy"])
        copy = conf.copy_path(key)
        folders = [copy, copy.with_name(f"{key}.part")]
        if process.request.get("private"):
            folders.append(conf.session_path(key))
        for folder in folders:
            move_to_trash(conf.home(), folder, key)
        crashpoint("copy-in-trash")
        return order(process, "discard", {"paths": trash_of(key)}, timeout=TIMEOUT)

    def ended(self, process: Process) -> None:
        processes.finish(process)
        key, tries = str(process.request["copy"]), int(process.request.get("tries", 0)) + 1
        if "failed" in kinds.result(process):
            if tries < TRIES:
                processes.prepare(
                    "discard", project=process.project, request=process.request | {"tries": tries}
                )
        elif process.project is not None:
            unpin_base(conf.control_path(process.project.key), key)


def trash_of(key: str) -> list[str]:
    """Everything of a key that lies in the trash, what an earlier delete left too."""
    trash: Path = conf.trash_path(key).parent
    return sorted(str(path) for path in trash.glob(f"{key}*")) if trash.is_dir() else []
