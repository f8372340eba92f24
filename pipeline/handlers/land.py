"""Kind `land`: push the candidate to the project's own branch, by compare-and-swap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.handlers.chore import order
from pipeline.handlers.merge import MergeStep
from pipeline.models import Merge, Process
from pipeline.processes.crashpoint import crashpoint
from pipeline.services import landing, projects

TIMEOUT = 900.0  # seconds; after it nobody knows whether it landed, and a probe looks


class LandHandler(MergeStep):
    def spec(self, process: Process) -> dict[str, Any]:
        merge = self.needed(process)
        crashpoint("merge-before-land")
        request = projects.towards(merge.project) | {
            "base_branch": merge.project.base_branch,
            "expected": merge.expected,
            "candidate": merge.candidate,
            "key": merge.key,
        }
        return order(process, "land", request, timeout=TIMEOUT)

    def answered(self, merge: Merge, answer: Mapping[str, Any]) -> None:
        landing.land_answered(merge, answer)
