"""A data folder with a server that is stepped by hand, a project on a real repository, and work as a coder leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.db import transaction

from pipeline import conf, moves
from pipeline.git.control import set_story_branch
from pipeline.models import Merge, Process, Project, Story
from pipeline.models.process import ProcessState
from pipeline.services import processes, projects
from tests import factories
from tests.factories import ALICE, commit_files, git
from tests.serving import Server

GATE = "agents: []\ngate:\n  command: sh check.sh\n"
CHECK = "test ! -e broken && echo all is well\n"
FILES = {".huskies/project.yaml": GATE, "check.sh": CHECK, "README.md": "hello\n"}


class QuickServer(Server):
    def step(self) -> None:
        """What a turn prepared is launched by the next one, at once."""
        super().step()
        if Process.objects.filter(state=ProcessState.PREPARED).exists():
            processes.ring()


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = QuickServer()
        factories.capacity()

    def repository(self, files: dict[str, str] | None = None, name: str = "shop") -> Path:
        return factories.repository(self.folder / name, files or FILES)

    def add(self, source: Path | str, *, approve: bool = True, **more: str) -> Project:
        """Register a repository and see its fetch through."""
        project = projects.add_project(str(source), actor=ALICE, **more)
        self.server.idle()
        version = projects.proposed_version(project)
        if approve and version is not None:
            projects.approve_version(version, actor=ALICE)
        project.refresh_from_db()
        return project

    def refresh(self, project: Project) -> Project:
        projects.refresh(project)
        self.server.idle()
        project.refresh_from_db()
        return project

    def work(
        self, project: Project, files: dict[str, str | None], title: str = "Add a button", **more: Any
    ) -> Story:
        """A story in coding whose work a session left in the control repository."""
        story = factories.story(project, title=title, **more)
        project.refresh_from_db()
        with transaction.atomic():
            story = moves.move(story, "start", actor=ALICE)
        return self.more_work(story, files)

    def more_work(self, story: Story, files: dict[str, str | None]) -> Story:
        project, control = story.project, conf.control_path(story.project.key)
        project.refresh_from_db()
        key = conf.new_key()
        copy = self.folder / f"work-{key}"
        git("clone", "-q", str(control), str(copy), cwd=self.folder)
        git("checkout", "-q", "-B", "work", story.tip or project.tip, cwd=copy)
        for name in [name for name, text in files.items() if text is None]:
            (copy / name).unlink()
        tip = commit_files(copy, {name: text for name, text in files.items() if text is not None}, "work")
        git(
            "--git-dir",
            str(control),
            "fetch",
            "-q",
            str(copy),
            f"+HEAD:refs/huskies/sessions/{key}",
            cwd=self.folder,
        )
        Story.objects.filter(pk=story.pk).update(base=project.tip, tip=tip)
        set_story_branch(control, story.branch, tip, story.tip or None)
        story.refresh_from_db()
        return story

    def queued(self, project: Project, files: dict[str, str | None], **more: Any) -> Story:
        """A story in the merge queue, as if its gate had passed."""
        story = self.work(project, files, **more)
        with transaction.atomic():
            return moves.move(story, "to_merge", actor=ALICE)

    def until_stage(self, story: Story, stage: str) -> Story:
        def reached() -> bool:
            story.refresh_from_db()
            return story.stage == stage

        self.server.until(reached, what=f"stage {stage} of {story.label}", seconds=30)
        return story

    def until_merge(self, story: Story, state: str) -> Merge:
        def newest() -> Merge | None:
            return Merge.objects.filter(story=story).order_by("-pk").first()

        self.server.until(
            lambda: (m := newest()) and m.state == state, what=f"merge {state} of {story.label}", seconds=30
        )
        merge = newest()
        assert merge is not None
        return merge

    def close(self) -> None:
        """No child outlives a test."""
        Process.objects.filter(state="prepared").update(state="handled")
        self.server.close()
