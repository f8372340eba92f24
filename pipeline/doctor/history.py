"""What git says against what the database says: only gated work landed (R5), done is reachable (R6), nothing is lost (R7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import conf
from pipeline import git as gits
from pipeline.doctor import Lie
from pipeline.git import GitError
from pipeline.git.command import git
from pipeline.git.names import check_commit
from pipeline.models import GateRun, Merge, Project, StageChange, Story
from pipeline.models.gate import Verdict
from pipeline.models.merge import MergeState
from pipeline.models.project import ProjectState
from pipeline.stages import Stage


def _ready() -> Iterator[tuple[Project, Path]]:
    for project in Project.objects.filter(state=ProjectState.READY).exclude(tip=""):
        yield project, conf.control_path(project.key)


def missing(control: Path, commits: Iterable[str]) -> set[str]:
    """Those of the ids at which the repository has no commit; one git process for all of them. Raises GitError."""
    wanted = sorted({check_commit(commit) for commit in commits})
    if not wanted:
        return set()
    asked = "".join(f"{commit}^{{commit}}\n" for commit in wanted).encode()
    # A name that is not there is answered by itself and the word `missing`.
    said = git(control, "cat-file", "--batch-check=%(objecttype)", stdin=asked, timeout=600).stdout
    return {
        commit
        for commit, line in zip(wanted, said.decode().splitlines(), strict=True)
        if line.strip() != "commit"
    }


def reachable(control: Path, commits: Iterable[str], base: str) -> set[str]:
    """Those of the ids that are on the branch whose tip is `base`; two git processes for all of them. Raises GitError."""
    wanted = set(commits)
    if missing(control, [base]):
        return set()
    there = wanted - missing(control, wanted)
    asked = "".join(f"{commit}\n" for commit in sorted(there)) + f"^{base}\n"
    said = git(control, "rev-list", "--stdin", stdin=asked.encode(), timeout=600).stdout if there else b""
    return there - set(said.decode().split())


@dataclass(frozen=True, slots=True)
class _Gated:
    """What of a project's landed commits was judged: a handful of queries and one git process for all of them."""

    trees: dict[str, str]
    green: set[str]
    without: set[tuple[int, str]]

    @classmethod
    def of(cls, project: Project, control: Path, commits: list[str]) -> _Gated:
        asked = "".join(f"{check_commit(commit)}^{{tree}}\n" for commit in commits).encode()
        said = (
            git(control, "cat-file", "--batch-check=%(objectname)", stdin=asked, timeout=600).stdout
            if commits
            else b""
        )
        runs = GateRun.objects.filter(story__project=project).order_by()
        return cls(
            dict(zip(commits, said.decode().splitlines(), strict=True)),
            set(runs.filter(verdict=Verdict.PASSED).values_list("tree", flat=True)),
            set(runs.filter(verdict=Verdict.SKIPPED, command="").values_list("story_id", "tree")),
        )

    def says_so(self, merge: Merge) -> bool:
        """A green verdict for the very tree; or there was no gate to run, which a skipped run without a command says."""
        tree = self.trees.get(merge.candidate, "")
        return tree in self.green or (merge.story_id, tree) in self.without


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
            "R6",
            f"project {project.name}",
            f"its base is at {base or 'nothing'}, and the database says {project.tip}.",
        )
    if base is None:
        return
    done = Story.objects.filter(project=project, stage=Stage.DONE).select_related("project")
    tried = Merge.objects.filter(project=project).exclude(candidate="").select_related("story__project")
    stories, merges = list(done), list(tried)
    there_now = reachable(control, [*(s.landed for s in stories), *(m.candidate for m in merges)], base)
    gated = _Gated.of(project, control, [m.candidate for m in merges if m.candidate in there_now])

    def on_base(commit: str) -> bool:
        return commit in there_now

    for story in stories:
        if not on_base(story.landed):
            yield Lie(
                "R6",
                f"story {story.label}",
                f"it is done, but {story.landed[:12]} is not on {project.base_branch}.",
            )
    for merge in merges:
        there, name = on_base(merge.candidate), f"{merge.candidate[:12]}"
        if merge.state != MergeState.LANDED:
            if there and merge.story.stage in (Stage.MERGE, Stage.MERGE_FAILURE, Stage.BLOCKED):
                said = f"its candidate {name} is on {project.base_branch}, but it is in {merge.story.stage}."
                yield Lie("R6", f"story {merge.story.label}", said)
        elif not there:
            yield Lie("R6", f"merge {merge.pk}", f"it landed, but {name} is not on {project.base_branch}.")
        else:
            yield from _of_landed(merge, gated)


def _of_landed(merge: Merge, gated: _Gated) -> Iterator[Lie]:
    """What must be true of a merge whose commit is on the base branch: it was gated, and its story knows."""
    if not gated.says_so(merge):
        said = f"{merge.candidate[:12]} landed without a green gate on its tree."
        yield Lie("R5", f"merge {merge.pk}", said)
    story = merge.story
    if story.stage == Stage.DONE:
        return
    landing = StageChange.objects.filter(story=story, verb="land").order_by("-id").first()
    if landing is None:
        yield Lie("R6", f"story {story.label}", f"merge {merge.pk} landed, and its history does not say so.")
    elif landing.to_stage == Stage.DONE and not _left_done(landing):
        yield Lie("R6", f"story {story.label}", f"it landed, and is in {story.stage}, to which nothing led.")


def _left_done(landing: StageChange) -> bool:
    """Whether somebody took the story on after it landed (reopened or archived it)."""
    later = StageChange.objects.filter(story_id=landing.story_id, id__gt=landing.pk, from_stage=Stage.DONE)
    return later.exclude(to_stage=Stage.DONE).exists()


def kept() -> Iterator[Lie]:
    """R7: the newest work of each story is in the control repository, and a ref holds it. A person who deletes a story wants it lost."""
    for project, control in _ready():
        try:
            holders = {
                commit
                for prefix in ("refs/huskies/sessions/", "refs/heads/")
                for commit in gits.list_refs(control, prefix).values()
            }
            rows = Story.objects.filter(project=project, deleting="").exclude(tip="")
            stories = list(rows.exclude(stage=Stage.DONE).select_related("project"))
            absent = missing(control, [story.tip for story in stories])
        except (GitError, OSError) as error:
            yield Lie("R7", f"project {project.name}", f"its control repository cannot be read: {error}")
            continue
        for story in stories:
            if story.tip in absent:
                said = f"its work {story.tip[:12]} is not in the control repository."
                yield Lie("R7", f"story {story.label}", said)
            elif story.tip not in holders:
                yield Lie("R7", f"story {story.label}", f"no ref holds its work {story.tip[:12]}.")
