"""The verbs of a project: add it, look at its repository again, accept what was rewritten; and its file's (projectfiles)."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.text import slugify

from pipeline import conf, events, signals
from pipeline.actors import Actor
from pipeline.exceptions import BadInput, Refused, TransitionRefused
from pipeline.git import control as refs
from pipeline.git import names, source
from pipeline.git.refusals import Refused as GitRefused
from pipeline.models import Process, Project, Story
from pipeline.models.process import ProcessState
from pipeline.models.project import ProjectState
from pipeline.prepared import Select
from pipeline.processes.chore_fetch import read_project_file
from pipeline.projectfile import ProjectFile
from pipeline.services import processes
from pipeline.services.projectfiles import (
    active_file,
    active_version,
    approve_version,
    proposed_version,
    reject_version,
    setup_steps,
    take_file,
    unconfined_allowed,
)
from pipeline.services.stories import check_may
from pipeline.texts import storable
from pipeline.transitions import Verb

__all__ = [
    "accept_history",
    "active_file",
    "active_version",
    "add_project",
    "approve_version",
    "branch_taken",
    "fetched",
    "follow_base",
    "proposed_version",
    "refresh",
    "refresh_all",
    "reject_version",
    "setup_steps",
    "take_file",
    "towards",
    "unconfined_allowed",
]

logger = logging.getLogger("huskies.projects")

FETCH_TRIES = 3
LAYOUTS = {"checked_out": "checkout", "bare": "bare", "remote": "remote"}


def add_project(
    text: str, *, actor: Actor, name: str | None = None, base_branch: str | None = None
) -> Project:
    """Register a repository: the row and its first fetch, in one transaction. `text`: a folder of this machine, or a URL.

    One refused before is looked at again. Raises NotAllowed, BadInput. What the repository itself says no to shows as the project's state and reason.
    """
    check_may(actor, "project.add", None)
    address, kind = _address(text)
    if base_branch:
        try:
            names.check_branch(base_branch)
        except names.HostileName as error:
            raise BadInput(str(error)) from error
    same = Project.objects.filter(source=address).first()
    if same is not None and same.state == ProjectState.REFUSED:
        return _add_again(same, actor, name, base_branch)
    if same is not None:
        raise BadInput(f"The repository {address} is registered already, as project {same.name}.")
    project = Project(
        name=storable(name, "name") if name else _free_name(address),
        key=conf.new_key(),
        source=address,
        source_kind="remote" if kind == "url" else "",
        base_branch=base_branch or "",
    )
    try:
        project.full_clean(exclude={"version"})
    except ValidationError as error:
        said = "; ".join(f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())
        raise BadInput(f"The project cannot be added. {said}") from error
    try:
        with transaction.atomic():
            project.save(force_insert=True)
            processes.prepare("fetch", project=project)
            events.record(project.pk, "project", text=f"{actor.name} added the project")
    except IntegrityError as error:
        raise BadInput(f"There is a project {project.name} already; give another name.") from error
    return project


def _add_again(project: Project, actor: Actor, name: str | None, base_branch: str | None) -> Project:
    """The repository was refused, and the person has seen to that: the same row is looked at anew."""
    if name and name != project.name:
        raise BadInput(
            f"The repository {project.source} was added already, as project {project.name}, and refused. "
            "Add it again without another name."
        )
    if base_branch:
        Project.objects.filter(pk=project.pk).update(base_branch=base_branch)
    refresh(project, actor=actor)
    project.refresh_from_db()
    return project


def refresh(project: Project, *, actor: Actor | None = None) -> Process:
    """Look at the project's repository again: a fetch process, the one that is under way if there is one."""
    if actor is not None:
        check_may(actor, "project.refresh", project)
    with transaction.atomic():
        project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        running = Process.objects.unhandled().filter(project=project, kind="fetch").first()
        if running is not None:
            return running
        if project.state == ProjectState.REFUSED:
            Project.objects.filter(pk=project.pk).update(state=ProjectState.PREPARING, reason="")
            events.record(project.pk, "project", text="the repository is looked at again")
        return processes.prepare("fetch", project=project)


def refresh_all() -> None:
    """The sweep: each project whose repository can be looked at, and those whose first look got lost."""
    for project in Project.objects.filter(state__in=[ProjectState.READY, ProjectState.PREPARING]):
        refresh(project)


def towards(project: Project) -> dict[str, Any]:
    """How the chores name a project's repository."""
    return {
        "control": str(conf.control_path(project.key)),
        "source": project.source,
        "source_kind": "url" if project.source_kind == "remote" else "path",
    }


def fetched(project: Project, process: Process, answer: Mapping[str, Any]) -> None:
    """What a fetch's answer (`kinds.result`) means for the project; the caller holds its row."""
    if "result" in answer:
        _take(project, answer["result"])
        return
    preparing = project.state == ProjectState.PREPARING
    tries = int(process.request.get("tries", 0)) + 1
    if "refused" in answer:
        reason = str(answer["refused"].get("message"))
    elif preparing and tries < FETCH_TRIES:
        processes.prepare("fetch", project=project, request={"tries": tries})
        return
    else:
        reason = f"Its repository could not be fetched. {answer['failed']} `project refresh {project.name}` tries again."
    values = {"reason": reason, **({"state": ProjectState.REFUSED} if preparing else {})}
    if Project.objects.filter(pk=project.pk).exclude(reason=reason).update(**values):
        logger.warning("Project %s: %s", project.name, reason, extra={"action": "project_reason"})
        events.record(project.pk, "project", text=reason)


def _take(project: Project, said: Mapping[str, Any]) -> None:
    reason, tip = "", str(said["tip"])
    if said.get("rewritten"):
        tip = str(said["base"])
        reason = (
            f"Its branch {said['base_branch']} was rewritten: it is at {said['tip'][:12]}, which does not hold "
            f"{tip[:12]}. Nothing lands until an admin accepts the new history (`project accept-history {project.name}`)."
        )
    else:
        follow_base(project, str(said["base_branch"]), tip)
    before = (project.state, project.reason, project.tip)
    Project.objects.filter(pk=project.pk).update(
        state=ProjectState.READY,
        reason=reason,
        tip=tip,
        base_branch=said["base_branch"],
        object_format=said["object_format"],
        source_kind=LAYOUTS[said["layout"]],
    )
    project.refresh_from_db()
    if not reason:
        take_file(
            project,
            text=said["project_file"],
            blob=said["project_file_blob"],
            commit=tip,
            problem=said["project_file_problem"],
        )
    if before != (project.state, project.reason, project.tip):
        events.record(project.pk, "project", text=reason or f"{project.base_branch} is at {tip[:12]}")


def follow_base(project: Project, branch: str, tip: str) -> None:
    """The control repository's base goes where the project's own branch is. Idempotent."""
    control = conf.control_path(project.key)
    old = refs.read_ref(control, names.branch_ref(branch))
    if old != tip:
        refs.advance_base(control, branch, tip, old)


def read_file_at(project: Project, commit: str) -> None:
    """Take the project file of a commit of the base branch, after a landing moved it."""
    said = read_project_file(conf.control_path(project.key), commit)
    take_file(
        project,
        text=said["project_file"],
        blob=said["project_file_blob"],
        commit=commit,
        problem=said["project_file_problem"],
    )


def accept_history(project: Project, *, actor: Actor) -> Project:
    """An admin accepts that the project's branch was rewritten: the server's base follows it, and landing goes on."""
    check_may(actor, "project.approve_file", project)
    with transaction.atomic():
        project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        control = conf.control_path(project.key)
        tip = refs.read_ref(control, names.upstream_ref(project.base_branch)) if project.tip else None
        if tip is None or tip == project.tip:
            raise Refused(
                f"Project {project.name}: the branch {project.base_branch} was not rewritten, as far as the server has seen."
            )
        follow_base(project, project.base_branch, tip)
        Project.objects.filter(pk=project.pk).update(tip=tip, reason="")
        project.refresh_from_db()
        read_file_at(project, tip)
        events.record(project.pk, "project", text=f"{actor.name} accepted the rewritten history")
    return project


LAST_FETCH: Select[Process] = Select(
    lambda project: (
        Process.objects.filter(project=project, kind="fetch", state=ProcessState.HANDLED)
        .order_by("-id")
        .only("exit")[:1]
    ),
    int,
)


def branch_taken(story: Story) -> str:
    """Why the story's branch name cannot be used, "" if it can: the project's own repository has such a branch, and not from us."""
    newest = LAST_FETCH.first(story.project_id)
    said = (newest.exit or {}).get("answer") or {} if newest else {}
    if story.branch not in (said.get("result") or {}).get("taken_branches", []):
        return ""
    return (
        f"Story {story.label} cannot start: the project's repository has a branch {story.branch} of somebody else's. "
        "Rename or remove that branch, refresh the project, then start the story again."
    )


def move_base(sender: Any, *, project: Project, file: ProjectFile, **_: Any) -> None:
    """A project file that names another base branch holds now: the next fetch brings it."""
    if file.base_branch and file.base_branch != project.base_branch:
        Project.objects.filter(pk=project.pk).update(base_branch=file.base_branch)
        if not Process.objects.live().filter(project=project, kind="fetch").exists():
            processes.prepare("fetch", project=project)


def refuse_taken_branch(sender: Any, *, story: Story, verb: Verb, **_: Any) -> None:
    """A story whose branch name somebody else uses does not start: the refusal takes the move back with its transaction."""
    if verb.name == "start" and (reason := branch_taken(story)):
        raise TransitionRefused(reason)


def connect() -> None:
    signals.stage_changed.connect(refuse_taken_branch, dispatch_uid="pipeline.branch")
    signals.project_file_active.connect(move_base, dispatch_uid="pipeline.base")


def _address(text: str) -> tuple[str, str]:
    """What was typed, as the absolute folder or the URL, and which of both."""
    text = text.strip()
    try:
        names.check_text(text, "repository's address")
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            raise BadInput("The repository's address holds control characters; type it anew.")
        kind = source.kind_of(text)
        if kind == "url":
            return source.check_url(text), kind
        folder = names.check_folder(Path(text).expanduser().absolute().resolve())
        if not folder.is_dir():
            what = "it is no folder" if folder.exists() else "there is no such folder"
            raise BadInput(f"The repository {folder} cannot be used: {what}: check the path.")
        return str(folder), kind
    except names.HostileName as error:
        raise BadInput(str(error)) from error
    except GitRefused as error:
        raise BadInput(error.message) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"The repository's address {text[:80]!a} cannot be used: {error}") from error


def _free_name(address: str) -> str:
    """A name from the last part of the address, made free by a number."""
    last = re.split(r"[/:]", address.rstrip("/"))[-1].removesuffix(".git") or "project"
    base = slugify(last).replace("_", "-").strip("-")[:50] or "project"
    used = set(Project.objects.filter(name__startswith=base).values_list("name", flat=True))
    numbers = iter(range(2, len(used) + 3))
    name = base
    while name in used:
        name = f"{base}-{next(numbers)}"
    return name
