"""What the components' setup started (a database, a container) is torn down in the copy as it was left, before the copy goes.

It is a process of its own ahead of the delete, confined like the setup. Nothing that happens in it keeps the copy from going."""

from __future__ import annotations

import logging
from typing import Any

from pipeline import conf, events, logevents
from pipeline.models import Process, Project
from pipeline.processes import confine
from pipeline.services import projectfiles

logger = logging.getLogger("huskies.copies")


def steps_before(process: Process, keys: list[str]) -> list[dict[str, Any]]:
    """The runner's steps for the copies of a delete; none where nothing was set up."""
    project, level = process.project, confine.level_available().name
    # Without confinement only a gate's copy was set up, and only where that is allowed.
    if project is None or (
        level != "bubblewrap"
        and not (process.request.get("private") and projectfiles.unconfined_allowed(project))
    ):
        return []
    return [step for key in keys if conf.copy_path(key).is_dir() for step in _of_copy(project, key, level)]


def tell_failures(process: Process) -> None:
    """What of it did not end well, where people look for it; inside the caller's transaction."""
    ends = [
        note.body
        for note in logevents.since(process.pk, kinds=("note",))
        if note.body.get("note") == "step-end"
        and str(note.body.get("step")).startswith(projectfiles.TEARDOWN)
    ]
    failed = [body for body in ends if (body.get("outcome"), body.get("code")) != ("exited", 0)]
    for body in failed:
        how = f"exit code {body['code']}" if body.get("outcome") == "exited" else body.get("outcome")
        text = f"The {body['step']} failed ({how}) in a working copy, which is removed all the same."
        logger.warning(text, extra={"action": "teardown_failed", "key": process.key})
        if process.project is not None:
            events.record(process.project.pk, "project", text=text)


def _of_copy(project: Project, key: str, level: str) -> list[dict[str, Any]]:
    copy, own = conf.copy_path(key), conf.session_path(key)
    home, tmp = own / "home", own / "tmp"
    place: dict[str, Any] = {
        "level": level,
        "writable": [copy, home, tmp],
        "readable": [conf.control_path(project.key) / "objects"],
        "hidden": [conf.home()],
        "network": True,
        "cwd": copy,
    }
    file = projectfiles.active_file(project)
    environment = confine.allowed_environment(home, tmp, {})
    steps = projectfiles.teardown_steps(file, copy=copy, environment=environment, place=place)
    folders = {"name": "folders", "files": [["mkdir", str(each)] for each in (home, tmp)]}
    return [folders, *steps] if steps else []
