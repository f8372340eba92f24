"""A database that was put back from an older copy, while the data folder, git and the agents went on (rules.md, window 32)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from django.db import connection
from psycopg import sql

from agents.models import Session
from huskies_site import doctoring
from huskies_site.stack import startup
from pipeline import conf
from pipeline.datafolder import prepare
from pipeline.git.control import list_refs, read_ref
from pipeline.git.names import SESSIONS, session_ref
from pipeline.models import Act, Process
from pipeline.processes import spawn
from pipeline.services import hosts
from pipeline.supervisor import Supervisor
from tests import databases
from tests.e2e.shop import Shop, wait_for, write
from tests.factories import git


def copy_of_the_database(folder: Path) -> Callable[[], None]:
    """A backup as people make it: SQLite's backup API, or a template database. Returns what puts it back."""
    name = str(connection.settings_dict["NAME"])
    connection.close()
    if connection.vendor == "sqlite":
        backup = folder / "backup.sqlite3"

        def copy(source: Path | str, target: Path | str) -> None:
            with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
                old.backup(new)

        copy(name, backup)
        return lambda: (connection.close(), copy(backup, name))[1]
    kept = f"{name}_copy"

    def make(new: str, template: str) -> None:
        connection.close()
        with psycopg.connect(databases.postgresql_url(), autocommit=True) as server:
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(new)))
            names = sql.Identifier(new), sql.Identifier(template)
            server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))

    def put_back() -> None:
        make(name, kept)
        with psycopg.connect(databases.postgresql_url(), autocommit=True) as server:
            server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(kept)))

    make(kept, name)
    return put_back


def wait(name: str) -> list[dict[str, object]]:
    return [write(f"{name}.txt"), {"say": f"half of {name}"}, wait_for(), write(f"{name}2.txt")]


def begin_again(shop: Shop) -> None:
    """The server of the old time is gone; another one starts."""
    shop.server.supervisor.close()
    shop.server.supervisor = Supervisor(tick_seconds=0.005)
    shop.server.supervisor.open_bell()


@pytest.mark.django_db(transaction=True)
def test_nothing_is_lost_and_nothing_runs_twice_when_an_older_database_comes_back(
    shop: Shop, tmp_path: Path
) -> None:
    prepare(conf.home())
    assert not startup.set_up()["restored"]
    hosts.beat()
    project = shop.open(coders=2)
    ends = shop.start(project, wait("ends"), [write("ends3.txt")])
    first = shop.until_line(ends, "half of ends")
    lasts = shop.start(project, wait("lasts"), [write("lasts3.txt")])
    second = shop.until_line(lasts, "half of lasts")
    put_back = copy_of_the_database(tmp_path)

    # The time that will be undone: one story lands, one is made and lands, one is made and runs.
    hosts.beat()
    shop.go(first)
    shop.until_stage(ends, "done")
    unknown = shop.start(project, [write("unknown.txt")])
    shop.until_stage(unknown, "done")
    forgotten = shop.sessions(unknown)[0].key
    runs = shop.start(project, wait("runs"))
    third = shop.until_line(runs, "half of runs").key
    landed = git("rev-parse", "main", cwd=shop.repo)
    hosts.beat()
    put_back()

    said = startup.set_up()
    assert (said["restored"], said["closed"]) == (True, 2)
    assert {second.key, third} <= set(said["stopped"])
    begin_again(shop)
    assert Session.objects.count() == 2 and not Session.objects.live().exists()
    # The one that ended in the time that was undone is found at its ref.
    first.refresh_from_db()
    control = conf.control_path(project.key)
    assert first.saved and first.saved == read_ref(control, session_ref(first.key)) == shop.fresh(ends).tip
    shop.server.until(
        lambda: not any(spawn.runner_alive(conf.runs(), key) for key in (second.key, third)),
        what="the end of both",
    )
    shop.refresh(project)
    for story in (ends, lasts):
        story = shop.until_stage(story, "done")
        assert (story.retries, story.crashes) == (0, 0)
        assert [one.outcome for one in shop.sessions(story)] == ["lost", "done"]
    shop.server.idle()
    second.refresh_from_db()
    assert second.saved == read_ref(control, session_ref(second.key)) and second.saved
    # What the database does not know is kept, and named.
    assert git("merge-base", "--is-ancestor", landed, "main", cwd=shop.repo) == ""
    assert session_ref(forgotten) in list_refs(control, SESSIONS)
    assert (conf.copy_path(third) / "runs.txt").exists()
    subjects = sorted((lie.rule, lie.subject) for lie in doctoring.lies(0))
    assert subjects == [("R7", f"copy {third}"), ("R7", "project shop")]
    assert Act.objects.filter(verb="server.up", why__contains="put back from an older copy").count() == 1
    assert not Process.objects.filter(key=third).exists()
    assert not startup.set_up()["restored"]
