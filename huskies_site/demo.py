"""The demo: a real git repository, three stories, and two scripted coders. Nothing in it is pretended but the coders, and they say so."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import transaction

from agents.services import pool
from huskies_site import demo_files
from pipeline import conf
from pipeline.actors import Actor
from pipeline.exceptions import Refused
from pipeline.git import GitError
from pipeline.git.command import project_git
from pipeline.models import Capacity, Project
from pipeline.models.project import ProjectVersionState
from pipeline.processes.confine import level_available
from pipeline.projectfile import PROJECT_FILE
from pipeline.services import projects, stories

BRANCH = "main"


class DemoNotMade(Refused):
    """The demo's repository could not be made."""


def start_demo(actor: Actor, *, start: bool = True) -> Project:
    """A new repository under the data folder, registered as `demo` (then `demo-2` ...), with three stories.

    `start` gives them to the coders; without it they stay in the backlog. Returns at once: the stories wait until the server
    has fetched the repository, then until a coder is free. Raises NotAllowed, DemoNotMade.
    """
    stories.check_may(actor, "demo.start", None)
    folder = conf.home() / "demo" / secrets.token_hex(6)
    blob, commit = make_repository(folder)
    # Asked before the transaction: the answer may need a trial start of bubblewrap.
    unconfined = level_available().name == "none"
    with transaction.atomic():
        Capacity.lock()  # of two demos at once, each finds a name of its own
        project = projects.add_project(str(folder), name=free_name(), actor=actor)
        if unconfined:
            # Its only agents are the scripted ones that this very actor starts here.
            Project.objects.filter(pk=project.pk).update(unconfined_allowed=True)
        project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        # The text that is approved is ours by construction; the fetch then finds this very blob, or another file, which waits.
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
    for story in made if start else ():
        pool.start_story(story, actor=actor)
    project.refresh_from_db()
    return project


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
        project_git(folder, "add", "--all", "--force")  # whatever this person ignores everywhere
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
        shutil.rmtree(folder, ignore_errors=True)
        raise DemoNotMade(
            f"The demo's repository could not be made in {folder}: {error}. Mend that and start the demo again."
        ) from error
