"""The demo: a real git repository, three stories, and two scripted coders. Nothing in it is pretended but the coders, and they say so."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction

from agents.services import pool
from huskies_site import demo_files
from pipeline import conf
from pipeline.actors import Actor
from pipeline.exceptions import Refused
from pipeline.git import GitError
from pipeline.git.command import project_git
from pipeline.models import Project, Story
from pipeline.models.project import ProjectVersionState
from pipeline.processes.confine import level_available
from pipeline.projectfile import PROJECT_FILE
from pipeline.services import projects, stories

BRANCH = "main"


class DemoNotMade(Refused):
    """The demo's repository could not be made."""


@dataclass(frozen=True, slots=True)
class Demo:
    """`waiting`: story number -> why it waits; only of stories that were started."""

    project: Project
    stories: list[Story]
    waiting: dict[int, str]


def start_demo(actor: Actor, *, start: bool = True) -> Demo:
    """A new repository under the data folder, registered as `demo` (then `demo-2` ...), with three stories.

    `start` gives them to the coders; without it they stay in the backlog. Raises NotAllowed, DemoNotMade.
    """
    stories.check_may(actor, "demo.start", None)
    name = free_name()
    folder = conf.home() / "demo" / f"{name}-{secrets.token_hex(3)}"
    blob, commit = make_repository(folder)
    with transaction.atomic():
        project = projects.add_project(str(folder), name=name, actor=actor)
        if level_available().name == "none":
            # Its only agents are the scripted ones that this very actor starts here.
            Project.objects.filter(pk=project.pk).update(unconfined_allowed=True)
        project = Project.objects.select_for_update().get(pk=project.pk)
        version = projects.take_file(project, text=demo_files.FILES[PROJECT_FILE], blob=blob, commit=commit)
        if version is not None and version.state == ProjectVersionState.PROPOSED:
            projects.approve_version(version, actor=actor)  # we wrote it, and the actor asked for it
        made = [
            stories.create_story(
                project,
                title=each.title,
                kind=each.kind,
                description=each.description,
                criteria=each.criteria,
                qa="server",
                actor=actor,
            )
            for each in demo_files.STORIES
        ]
    project.refresh_from_db()
    waiting = {}
    if start:
        for story in made:
            started = pool.start_story(story, actor=actor)
            if started.queued:
                waiting[story.number] = started.queued
    rows = list(Story.objects.select_related("project").filter(project=project).order_by("number"))
    return Demo(project, rows, waiting)


def free_name() -> str:
    """`demo`, or the first of `demo-2`, `demo-3` ... that no project has."""
    used = set(Project.objects.filter(name__startswith="demo").values_list("name", flat=True))
    names = ["demo", *(f"demo-{number}" for number in range(2, len(used) + 3))]
    return next(name for name in names if name not in used)


def make_repository(folder: Path) -> tuple[str, str]:
    """A git repository with one commit; returns the blob of its project file and the commit. Raises DemoNotMade."""
    with _as_refusal(folder):
        for name, text in demo_files.FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755 if text.startswith("#!") else 0o644)
        project_git(folder, "init", "-q", f"--initial-branch={BRANCH}")
        project_git(folder, "add", "--all")
        project_git(
            folder, "-c", "commit.gpgsign=false", "commit", "-q", "-m", "A small calculator, with a bug"
        )
        blob, commit = (
            project_git(folder, "rev-parse", "--verify", name).stdout.decode().strip()
            for name in (f"HEAD:{PROJECT_FILE}", "HEAD")
        )
        return blob, commit


@contextmanager
def _as_refusal(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, GitError) as error:
        raise DemoNotMade(
            f"The demo's repository could not be made in {folder}: {error}. Mend that and start the demo again."
        ) from error
