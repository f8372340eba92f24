"""What git says against what the database says: only gated work landed (R5), done is reachable (R6), nothing is lost (R7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline import conf
from pipeline import git as gits
from pipeline.doctor import Lie
from pipeline.git import GitError
from pipeline.models import GateRun, Merge, Project, Story
from pipeline.models.gate import Verdict
from pipeline.models.merge import MergeState
from pipeline.models.project import ProjectState
from pipeline.stages import Stage


def _ready() -> Iterator[tuple[Project, Path]]:
    for project in Project.objects.filter(state=ProjectState.READY).exclude(tip=""):
        yield project, conf.control_path(project.key)


def landed() -> Iterator[Lie]:
    """R5 and R6, project by project."""
    for project, control in _ready():
        try:
            yield from _landed_in(project, control)
        except (GitError, OSError) as error:
            yield Lie("R6", f"project {project.name}", f"its control repository cannot be read: {error}")


def _landed_in(project: Project, control: Path) -> Iterator[Lie]:
    base = gits.read_ref(control, gits.branch_ref(project.base_branch))
    if base != project.tip:
        yield Lie(
            "R6", f"project {project.name}", f"its base is at {base}, and the database says {project.tip}."
        )
    if base is None:
        return
    stories = Story.objects.filter(project=project).select_related("project")
    for story in stories.filter(stage=Stage.DONE):
        if gits.resolve(control, story.landed) is None or not gits.is_ancestor(control, story.landed, base):
            yield Lie(
                "R6",
                f"story {story.label}",
                f"it is done, but {story.landed[:12]} is not on {project.base_branch}.",
            )
    for merge in Merge.objects.filter(project=project).exclude(candidate="").select_related("story__project"):
        on_base = gits.resolve(control, merge.candidate) is not None and gits.is_ancestor(
            control, merge.candidate, base
        )
        if (
            on_base
            and merge.state in (MergeState.FAILED, MergeState.REPLACED)
            and merge.story.stage != Stage.DONE
        ):
            yield Lie(
                "R6",
                f"story {merge.story.label}",
                f"its candidate {merge.candidate[:12]} is on {project.base_branch}, but it is not done.",
            )
        if merge.state == MergeState.LANDED:
            if not on_base:
                yield Lie(
                    "R6",
                    f"merge {merge.pk}",
                    f"it landed, but {merge.candidate[:12]} is not on {project.base_branch}.",
                )
            elif not _was_gated(merge, control):
                yield Lie(
                    "R5",
                    f"merge {merge.pk}",
                    f"{merge.candidate[:12]} landed without a green gate on its tree.",
                )


def _was_gated(merge: Merge, control: Path) -> bool:
    """A green verdict for the very tree; or the project had no gate, which the run that was skipped says."""
    tree = gits.tree_of(control, merge.candidate)
    if GateRun.objects.filter(story__project=merge.project, tree=tree, verdict=Verdict.PASSED).exists():
        return True
    return GateRun.objects.filter(story=merge.story, verdict=Verdict.SKIPPED).exists()


def kept() -> Iterator[Lie]:
    """R7: the newest work of each story is in the control repository, and a ref holds it."""
    for project, control in _ready():
        try:
            holders = set(gits.list_refs(control, "refs/huskies/sessions/").values()) | set(
                gits.list_refs(control, "refs/heads/").values()
            )
            for story in (
                Story.objects.filter(project=project)
                .exclude(tip="")
                .exclude(stage=Stage.DONE)
                .select_related("project")
            ):
                if gits.resolve(control, story.tip) is None:
                    yield Lie(
                        "R7",
                        f"story {story.label}",
                        f"its work {story.tip[:12]} is not in the control repository.",
                    )
                elif story.tip not in holders:
                    yield Lie("R7", f"story {story.label}", f"no ref holds its work {story.tip[:12]}.")
        except (GitError, OSError) as error:
            yield Lie("R7", f"project {project.name}", f"its control repository cannot be read: {error}")
