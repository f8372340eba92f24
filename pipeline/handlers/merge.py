"""What the three kinds of process of a merge have in common: find the row, and do nothing for one that has gone on without them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from django.db import transaction

from pipeline import kinds
from pipeline.exceptions import Refused
from pipeline.models import Merge, Process, Project
from pipeline.models.merge import OVER
from pipeline.services import merges, processes


class MergeStep(kinds.Handler):
    def merge_of(self, process: Process) -> Merge | None:
        """The merge, unless it is over or another process works for it."""
        rows = Merge.objects.filter(pk=process.request.get("merge"), process=process)
        return rows.exclude(state__in=OVER).select_related("project", "story", "process", "gate_run").first()

    def needed(self, process: Process) -> Merge:
        merge = self.merge_of(process)
        if merge is None:
            raise Refused("Its merge is over or has gone on without it.")
        return merge

    @abstractmethod
    def answered(self, merge: Merge, answer: Mapping[str, Any]) -> None:
        """What the chore's answer (`kinds.result`) means for the merge, in the transaction of `ended`."""

    def ended(self, process: Process) -> None:
        answer = kinds.result(process)
        Project.objects.select_for_update(no_key=True).get(pk=process.project_id or 0)
        merge = self.merge_of(process)
        processes.finish(process)
        if merge is not None:
            self.answered(merge, answer)
        # In a transaction of its own: the queue's next step locks another story, and this one holds the event counter.
        project_id = process.project_id or 0
        transaction.on_commit(lambda: merges.advance(project_id))
