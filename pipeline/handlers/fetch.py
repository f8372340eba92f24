"""Kind `fetch`: look at a project's own repository."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from pipeline import kinds
from pipeline.exceptions import Refused
from pipeline.handlers.chore import order
from pipeline.models import Merge, Process, Project
from pipeline.models.merge import MergeState
from pipeline.services import landing, merges, processes, projects

TIMEOUT = 3600.0  # seconds; a first fetch of a large repository over a slow line


class FetchHandler(kinds.Handler):
    def spec(self, process: Process) -> dict[str, Any]:
        project = process.project
        if project is None:
            raise Refused("The project of this fetch is gone.")
        request = projects.towards(project) | {"base_branch": project.base_branch or None}
        if project.tip:
            request["object_format"] = project.object_format
        return order(process, "fetch", request, timeout=TIMEOUT)

    def ended(self, process: Process) -> None:
        project = Project.objects.select_for_update(no_key=True).filter(pk=process.project_id or 0).first()
        if project is None:
            processes.finish(process)
            return
        answer = kinds.result(process)
        processes.finish(process)
        said = answer.get("result")
        if said and landed_meanwhile(project, process):
            return  # it may have looked before the push: what it says would move the base backwards; the next one looks again
        if said and project.tip and not said["rewritten"]:
            landing.heal(project, str(said["tip"]))
            project.refresh_from_db()
        projects.fetched(project, process, answer)
        if said:
            project_id = project.pk
            transaction.on_commit(lambda: merges.advance(project_id))


def landed_meanwhile(project: Project, process: Process) -> bool:
    """Whether something landed on the project's branch after the fetch had begun to look at it."""
    since = process.started_at or process.created_at
    return Merge.objects.filter(project=project, state=MergeState.LANDED, ended_at__gte=since).exists()
