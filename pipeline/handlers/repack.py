"""Kind `repack`: join the packs that intakes and fetches leave in a project's control repository. Its sweep says when."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pipeline import conf, kinds
from pipeline.handlers.chore import order
from pipeline.models import Process, Project
from pipeline.services import processes

logger = logging.getLogger("huskies.copies")

TIMEOUT = 3900.0  # seconds: more than git's own in `pipeline.git.control.repack`
MANY_PACKS = 50  # as git's own gc.autoPackLimit: each lookup of an object asks every pack


class RepackHandler(kinds.Handler):
    def spec(self, process: Process) -> dict[str, Any]:
        return order(process, "repack", {"control": process.request["control"]}, timeout=TIMEOUT)

    def ended(self, process: Process) -> None:
        if said := kinds.result(process).get("failed"):
            logger.warning("%s The sweep tries again.", said, extra={"action": "repack_failed"})
        processes.finish(process)


def repack_all() -> None:
    """The sweep: one repack for each control repository of this host with many packs; it runs beside the work and loses nothing."""
    for project in Project.objects.order_by("pk"):
        control = conf.control_path(project.key)
        if packs(control) < MANY_PACKS:
            continue
        if not Process.objects.unhandled().filter(project=project, kind="repack").exists():
            processes.prepare("repack", project=project, request={"control": str(control)})


def packs(control: Path) -> int:
    return sum(1 for _ in (control / "objects" / "pack").glob("*.pack"))
