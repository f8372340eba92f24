"""Kind `discard`: delete working copies that are no longer needed, however large.

`request`: `copy` (its key) or `keys` (of several), `private` (their folders too), `runs` (their run folders too, with the logs).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import conf, kinds
from pipeline.git.control import delete_refs
from pipeline.git.names import base_pin, snapshot_ref
from pipeline.handlers import teardown
from pipeline.handlers.chore import order, order_of_steps
from pipeline.models import Process
from pipeline.processes.copies import delete_tree, is_small, move_to_trash
from pipeline.processes.crashpoint import crashpoint
from pipeline.services import processes

TIMEOUT = 3600.0  # seconds
TRIES = 3


class DiscardHandler(kinds.Handler):
    def at_once(self, process: Process) -> dict[str, Any] | None:
        keys = keys_of(process)
        if not process.request.get("torn_down") and teardown.steps_before(process, keys):
            return None
        paths = [Path(path) for path in self._out_of_use(process, keys)]
        if not all(is_small(path) for path in paths):
            return None
        try:
            for path in paths:
                delete_tree(path)
        except (OSError, RecursionError):  # something in it is stubborn: the chore says what
            return None
        return {"deleted": [str(path) for path in paths]}

    def spec(self, process: Process) -> dict[str, Any]:
        keys = keys_of(process)
        if not process.request.get("torn_down") and (steps := teardown.steps_before(process, keys)):
            return order_of_steps(process, steps)
        return order(process, "discard", {"paths": self._out_of_use(process, keys)}, timeout=TIMEOUT)

    def _out_of_use(self, process: Process, keys: list[str]) -> list[str]:
        """Into the trash with what is asked for; all that lies there of it now."""
        for key in keys:
            copy = conf.copy_path(key)
            folders = [copy, copy.with_name(f"{key}.part")]
            if process.request.get("private"):
                folders.append(conf.session_path(key))
            if process.request.get("runs"):
                folders.append(conf.runs() / key)
            for folder in folders:
                move_to_trash(conf.home(), folder, key)
        crashpoint("copy-in-trash")
        return [path for key in keys for path in trash_of(key)]

    def ended(self, process: Process) -> None:
        processes.finish(process)
        tries = int(process.request.get("tries", 0)) + 1
        left = any(conf.copy_path(key).exists() for key in keys_of(process))
        if left and not process.request.get("torn_down"):
            again(process, torn_down=True)
            teardown.tell_failures(process)
        elif "failed" in kinds.result(process):
            if tries < TRIES:
                again(process, tries=tries)
        elif process.project is not None:
            control = conf.control_path(process.project.key)
            if control.exists():
                keys = keys_of(process)
                delete_refs(control, [*map(base_pin, keys), *map(snapshot_ref, keys)])


def again(process: Process, **more: Any) -> None:
    processes.prepare("discard", project=process.project, request=process.request | more)


def keys_of(process: Process) -> list[str]:
    return [str(key) for key in process.request.get("keys") or [process.request["copy"]]]


def trash_of(key: str) -> list[str]:
    """Everything of a key that lies in the trash, what an earlier delete left too."""
    trash: Path = conf.trash_path(key).parent
    return sorted(str(path) for path in trash.glob(f"{key}*")) if trash.is_dir() else []
