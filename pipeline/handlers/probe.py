"""Kind `probe`: after an answer that never came, see whether a candidate landed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.handlers.chore import order
from pipeline.handlers.merge import MergeStep
from pipeline.models import Merge, Process
from pipeline.services import landing, projects

TIMEOUT = 900.0  # seconds


class ProbeHandler(MergeStep):
    def spec(self, process: Process) -> dict[str, Any]:
        merge = self.needed(process)
        request = projects.towards(merge.project) | {
            "base_branch": merge.project.base_branch,
            "candidate": merge.candidate,
        }
        return order(process, "probe", request, timeout=TIMEOUT)

    def answered(self, merge: Merge, answer: Mapping[str, Any]) -> None:
        landing.probe_answered(merge, answer)
