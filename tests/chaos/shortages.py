"""Plans of the driver in which the machine has not enough of something, or a set-up is cut off. Each answers what it saw."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management import call_command
from django.db import OperationalError, connection, connections

from agents.models import Session
from agents.services import pool
from pipeline import conf, datafolder
from pipeline.models import Process, Project, StageChange, Story
from pipeline.services import processes
from tests.factories import ALICE

Job = dict[str, Any]


@contextmanager
def at_most(what: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def full_disk(job: Job) -> Job:
    """Start the story while no file may grow: SQLite's commit fails as on a full disk."""
    Project.objects.update(source=job["repo"])
    story = Story.objects.get()
    history = StageChange.objects.count()
    refused = ""
    with at_most(resource.RLIMIT_FSIZE, 0):
        try:
            pool.start_story(story, actor=ALICE)
        except OperationalError as error:
            refused = str(error)
    connections.close_all()
    return {
        "refused": refused,
        "stage": Story.objects.get().stage,
        "written": StageChange.objects.count() - history + Session.objects.count(),
    }


def no_descriptors(job: Job) -> Job:
    """Launch the started story's process with not one descriptor left."""
    Project.objects.update(source=job["repo"])
    process = pool.start_story(Story.objects.get(), actor=ALICE)
    del process
    pk = Process.objects.get(kind="agent").pk
    connection.ensure_connection()
    free = os.dup(0)
    os.close(free)
    failed = ""
    with at_most(resource.RLIMIT_NOFILE, free):
        try:
            processes.launch(pk)
        except OSError as error:
            failed = str(error)
    return {"failed": failed, "state": Process.objects.get(pk=pk).state}


def cut_migration(job: Job) -> Job:
    """The first migrate of a data folder, killed at its n-th statement."""
    datafolder.prepare(conf.home())
    count = 0

    def killer(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal count
        count += 1
        if count == job["statement"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(killer):
        call_command("migrate", verbosity=0, interactive=False)
    return {"statements": count}


PLANS = {"full disk": full_disk, "no descriptors": no_descriptors, "cut migration": cut_migration}
