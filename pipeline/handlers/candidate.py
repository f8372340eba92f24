"""Kind `candidate`: squash a story's work onto the project's newest base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline import merging
from pipeline.handlers.chore import order
from pipeline.handlers.merge import MergeStep
from pipeline.models import Merge, Process
from pipeline.services import merges, projects

TIMEOUT = 1800.0  # seconds


class CandidateHandler(MergeStep):
    def spec(self, process: Process) -> dict[str, Any]:
        merge = self.needed(process)
        request = projects.towards(merge.project) | {
            "base_branch": merge.project.base_branch,
            "tip": merge.tip,
            "key": merge.key,
            "message": message(merge),
            "author": merging.AUTHOR,
            # Of the row, so that a redo after a crash makes the same commit.
            "date": int(merge.created_at.timestamp()),
        }
        return order(process, "candidate", request, timeout=TIMEOUT)

    def answered(self, merge: Merge, answer: Mapping[str, Any]) -> None:
        merges.candidate_made(merge, answer)


def message(merge: Merge) -> str:
    """What the landed commit says."""
    story = merge.story
    return merging.commit_message(
        title=story.title,
        number=story.number,
        project=merge.project.name,
        criteria=list(story.criteria.values_list("text", flat=True)),
        trailers=[trailer for each in merging.trailers for trailer in each(story)],
    )
