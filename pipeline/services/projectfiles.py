"""The project file's versions: read, held until an admin approved them, active."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from pipeline import conf, events, signals
from pipeline.actors import Actor
from pipeline.exceptions import Refused
from pipeline.git.command import GitError
from pipeline.git.reading import all_paths, show_file
from pipeline.models import Project, ProjectVersion
from pipeline.models.project import ProjectVersionState
from pipeline.prepared import Select
from pipeline.processes import confine
from pipeline.projectfile import (
    CONTENTS_WANTED,
    ProjectFile,
    ProjectFileError,
    approvals_needed,
    gate_hash,
    parse,
    propose,
    registered_sections,
)
from pipeline.projectfile.fields import Command
from pipeline.projectfile.schema import argv_of
from pipeline.services.stories import check_may

NO_FILE = "none"
"""The blob of a version that stands for a project without the file."""
TEARDOWN = "teardown of"
TEARDOWN_TIMEOUT = timedelta(minutes=5)
ACTIVE: Select[tuple[int]] = Select(
    lambda project: ProjectVersion.objects.filter(
        project_id=project, state=ProjectVersionState.ACTIVE
    ).values_list("pk")[:1],
    int,
)


def active_version(project: Project) -> ProjectVersion | None:
    return ProjectVersion.objects.filter(project_id=project.pk, state=ProjectVersionState.ACTIVE).first()


def proposed_version(project: Project) -> ProjectVersion | None:
    return ProjectVersion.objects.filter(project_id=project.pk, state=ProjectVersionState.PROPOSED).first()


def file_of(version: ProjectVersion | None) -> ProjectFile:
    """The values of a version; the defaults for none."""
    sections = registered_sections()
    return (
        ProjectFile.from_json(version.data, sections=sections) if version else ProjectFile.default(sections)
    )


def active_file(project: Project) -> ProjectFile:
    """What holds for a project now."""
    found = ACTIVE.first(project.pk)
    return _read_once(project.key, found[0] if found else None)


def held_file(project: Project) -> ProjectFile:
    """The same by the project's row as it was read: no query when this process has read that version before. Versions are never edited."""
    return _read_once(project.key, project.version_id)


@lru_cache(maxsize=256)
def _read_once(project_key: str, version_id: int | None) -> ProjectFile:
    # The key besides the id: ids repeat after a restored backup.
    return file_of(ProjectVersion.objects.filter(pk=version_id or 0, project__key=project_key).first())


def unconfined_allowed(project: Project) -> bool:
    """Whether an admin allowed this project, or the whole server, to run its children without confinement."""
    return bool(project.unconfined_allowed or settings.HUSKIES_UNCONFINED)


def take_file(
    project: Project, *, text: str | None, blob: str | None, commit: str, problem: str = ""
) -> ProjectVersion | None:
    """The project file as it stands on the base branch, in the caller's transaction with the project's row locked.

    A broken file sets `file_error` and changes nothing else; one that needs no approval is active at once; any other is proposed.
    Returns the version that the text is, None for a broken one.
    """
    blob = blob or NO_FILE
    newest = project.versions.order_by("-id").first()
    if newest is not None and newest.blob == blob and not problem:
        _set_error(project, "")
        return newest
    try:
        if problem:
            raise Refused(problem)
        sections = registered_sections()
        file = parse(text, sections=sections) if text is not None else ProjectFile.default(sections)
    except (ProjectFileError, Refused) as error:
        _set_error(project, str(error))
        _hold_defaults(project, commit)
        return None
    _set_error(project, "")
    old = active_version(project)
    needs = [reason.message for reason in approvals_needed(file_of(old), file)]
    if needs and old is None:
        _hold_defaults(project, commit)
    ProjectVersion.objects.filter(project=project, state=ProjectVersionState.PROPOSED).update(
        state=ProjectVersionState.REPLACED
    )
    version = ProjectVersion.objects.create(
        project=project,
        blob=blob,
        commit=commit,
        text=text or "",
        data=file.to_json(),
        gate_hash=gate_hash(file),
        state=ProjectVersionState.PROPOSED if needs else ProjectVersionState.REPLACED,
        needs=needs,
    )
    if not needs:
        _activate(version, file)
    said = "the project file waits for an admin's approval" if needs else "the project file changed"
    events.record(project.pk, "project", text=said)
    return version


def approve_version(version: ProjectVersion, *, actor: Actor) -> ProjectVersion:
    """An admin has read what it names: from now on it holds. Raises NotAllowed, Refused when it no longer waits."""
    check_may(actor, "project.approve_file", version.project)
    with transaction.atomic():
        project = Project.objects.select_for_update(no_key=True).get(pk=version.project_id)
        _leave_proposed(version, ProjectVersionState.REPLACED)
        ProjectVersion.objects.filter(pk=version.pk).update(approved_by=actor.user)
        version.refresh_from_db()
        _activate(version, file_of(version))
        events.record(project.pk, "project", text=f"{actor.name} approved the project file")
    return version


def reject_version(version: ProjectVersion, *, actor: Actor) -> ProjectVersion:
    """An admin says no: the version before it goes on holding, and this text is not asked about again."""
    check_may(actor, "project.approve_file", version.project)
    with transaction.atomic():
        project = Project.objects.select_for_update(no_key=True).get(pk=version.project_id)
        _leave_proposed(version, ProjectVersionState.REJECTED)
        events.record(project.pk, "project", text=f"{actor.name} rejected the project file")
    version.refresh_from_db()
    return version


def proposal(project: Project) -> str:
    """A project file for what stands on the base branch now, with comments; nothing is written. Raises Refused without a commit."""
    if not project.tip:
        raise Refused(
            f"Project {project.name} has no commit to look at yet: it is {project.get_state_display()}."
        )
    control = conf.control_path(project.key)
    try:
        paths = all_paths(control, project.tip)
    except GitError as error:
        raise Refused(
            f"The control repository of {project.name} cannot be read: {error} `doctor` says more."
        ) from error
    wanted = [path for path in paths if path in CONTENTS_WANTED]
    found = {path: show_file(control, project.tip, path, max_bytes=256 * 1024) for path in wanted}
    contents = {
        path: file.data.decode("utf-8", "replace") for path, file in found.items() if file is not None
    }
    return propose(paths, contents, sections=registered_sections())


def setup_steps(
    file: ProjectFile, *, copy: Path, environment: Mapping[str, str], place: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Runner steps that set up the components in a copy, confined as `place` says (the arguments of confine.confined)."""
    return [
        _component_step(
            f"setup of {component.name}, command {number}",
            command,
            folder=copy / component.path,
            copy=copy,
            environment=environment,
            place=place,
            seconds=(component.timeout or file.setup_timeout).total_seconds(),
        )
        for component in file.components
        for number, command in enumerate(component.setup, 1)
    ]


def teardown_steps(
    file: ProjectFile, *, copy: Path, environment: Mapping[str, str], place: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Runner steps that tear the components of a copy down, as `setup_steps`; one that fails does not keep the next from running."""
    return [
        _component_step(
            f"{TEARDOWN} {component.name}, command {number}",
            command,
            folder=copy / component.path,
            copy=copy,
            environment=environment,
            place=place,
            seconds=min(component.timeout or TEARDOWN_TIMEOUT, TEARDOWN_TIMEOUT).total_seconds(),
        )
        | {"optional": True}
        for component in file.components
        for number, command in enumerate(component.teardown, 1)
    ]


def _component_step(
    name: str,
    command: Command,
    *,
    folder: Path,
    copy: Path,
    environment: Mapping[str, str],
    place: Mapping[str, Any],
    seconds: float,
) -> dict[str, Any]:
    return {
        "name": name,
        "argv": confine.confined(argv_of(command), **{**place, "cwd": folder}),
        "cwd": str(copy if place["level"] == "bubblewrap" else folder),
        "env": dict(environment),
        "timeout": seconds,
    }


def _activate(version: ProjectVersion, file: ProjectFile) -> None:
    """From now on this version holds; whoever keeps rows by the file is told inside the transaction."""
    ProjectVersion.objects.filter(project_id=version.project_id, state=ProjectVersionState.ACTIVE).update(
        state=ProjectVersionState.REPLACED
    )
    ProjectVersion.objects.filter(pk=version.pk).update(state=ProjectVersionState.ACTIVE)
    Project.objects.filter(pk=version.project_id).update(version=version)
    version.refresh_from_db()
    project = Project.objects.get(pk=version.project_id)
    signals.project_file_active.send(sender=Project, project=project, file=file)


def _hold_defaults(project: Project, commit: str) -> None:
    """A project whose first file cannot hold yet works by the defaults meanwhile."""
    if active_version(project) is not None:
        return
    file = ProjectFile.default(registered_sections())
    version = ProjectVersion.objects.create(
        project=project,
        blob=NO_FILE,
        commit=commit,
        data=file.to_json(),
        gate_hash=gate_hash(file),
        state=ProjectVersionState.REPLACED,
    )
    _activate(version, file)


def _leave_proposed(version: ProjectVersion, state: ProjectVersionState) -> None:
    changed = ProjectVersion.objects.filter(pk=version.pk, state=ProjectVersionState.PROPOSED)
    if not changed.update(state=state):
        version.refresh_from_db()
        raise Refused(
            f"This version of {version.project.name}'s project file does not wait for an approval: it is "
            f"{version.get_state_display()}."
        )


def _set_error(project: Project, error: str) -> None:
    if Project.objects.filter(pk=project.pk).exclude(file_error=error).update(file_error=error):
        project.file_error = error
        events.record(
            project.pk,
            "project",
            text="the project file is broken" if error else "the project file is mended",
        )
