"""The chore `repack`: keep a control repository quick. Request: `control`."""

from typing import Any

from pipeline.git.control import repack
from pipeline.git.names import check_folder


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Result: `packs`, how many are left. Nothing is pruned (see `repack`)."""
    control = check_folder(request["control"])
    repack(control)
    return {"packs": len(list((control / "objects" / "pack").glob("*.pack")))}
