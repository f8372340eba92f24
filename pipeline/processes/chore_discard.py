"""The chore `discard`: delete what was moved to `trash/`, however large. Request: `paths`."""

from typing import Any

from pipeline.git.names import check_folder
from pipeline.git.refusals import Refused
from pipeline.processes.copies import delete_tree


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Result: `deleted` (paths). Refused `not_trash` for a path that is not directly inside a folder named
    `trash`."""
    paths = [check_folder(path) for path in request["paths"]]
    for path in paths:
        if path.parent.name != "trash":
            raise Refused("not_trash", f"{path} is not deleted: only what lies in the trash folder is.")
    for path in paths:
        print(f"Deleting {path.name}", flush=True)
        delete_tree(path)
    return {"deleted": [str(path) for path in paths]}
