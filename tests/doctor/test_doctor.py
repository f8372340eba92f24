"""The doctor finds each kind of lie, and none where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Agent, Session
from huskies_site import doctoring
from pipeline import conf
from pipeline import git as gits
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.datafolder import prepare
from pipeline.git.command import git
from pipeline.git.merging import commit_tree
from pipeline.models import Capacity, LogEvent, Process, Project, Story
from pipeline.processes.identity import Identity, boot_id
from pipeline.services import stories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def data_folder() -> None:
    prepare(conf.home())


@pytest.fixture
def project() -> Project:
    project = Project.objects.create(
        name="web", key=conf.new_key(), source="/srv/web", state="preparing", base_branch="main"
    )
    return project


@pytest.fixture
def story(project: Project) -> Story:
    return stories.create_story(project, title="Add power", actor=OPERATOR_ON_HOST)


@pytest.fixture
def agent(project: Project) -> Agent:
    return Agent.objects.create(project=project, name="coder-1", role="coder", runtime="scripted")


def process(**values: Any) -> Process:
    long_ago = timezone.now() - timedelta(minutes=5)
    row = Process.objects.create(
        key=conf.new_key(), kind="agent", host=conf.host(), **{"started_at": long_ago, **values}
    )
    Process.objects.filter(pk=row.pk).update(created_at=long_ago)
    return row


def session(story: Story, agent: Agent, **values: Any) -> Session:
    fresh = {
        "key": conf.new_key(),
        "fence": 0,
        "host": conf.host(),
        "conversation": "c",
        "role": "coder",
        "runtime": "scripted",
    }
    return Session.objects.create(story=story, project=story.project, agent=agent, **{**fresh, **values})


def told() -> list[tuple[str, str]]:
    return [(lie.rule, lie.subject) for lie in doctoring.lies(0)]


def test_an_empty_server_tells_no_lies(story: Story, agent: Agent) -> None:
    session(story, agent)
    assert told() == []


def test_a_fence_from_the_future_is_a_lie(story: Story, agent: Agent) -> None:
    one = session(story, agent, fence=3)
    assert told() == [("R2", f"session {one.pk}")]


def test_more_sessions_than_the_limit_are_a_lie(story: Story, agent: Agent) -> None:
    session(story, agent)
    Capacity.objects.update_or_create(pk=1, defaults={"limit": 0})
    assert told() == [("R1", "the server")]


def test_an_end_that_was_never_handled_is_a_lie() -> None:
    one = process(state="exited", exit={"log_size": 0}, ended_at=timezone.now() - timedelta(minutes=1))
    assert told() == [("R3", f"process {one.key}")]


def test_an_event_that_is_missing_is_a_lie() -> None:
    one = process(state="handled", exit={"log_size": 10}, offset=10, last_seq=2, ended_at=timezone.now())
    LogEvent.objects.create(process=one, seq=1, kind="line", at=timezone.now())
    assert told() == [("R3", f"process {one.key}")]


def test_a_log_that_was_not_read_to_its_end_is_a_lie() -> None:
    one = process(state="handled", exit={"log_size": 10}, offset=9, ended_at=timezone.now())
    assert told() == [("R3", f"process {one.key}")]


def test_a_running_process_whose_runner_is_dead_is_a_lie() -> None:
    one = process(state="running", pid=1, start_time=1, boot_id=boot_id())
    assert told() == [("R4", f"process {one.key}")]


@pytest.fixture
def marked() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A living child that carries a run's marker."""
    key = conf.new_key()
    child = subprocess.Popen(
        [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"],
        env={**os.environ, "HUSKIES_SESSION": key},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    yield key, child
    child.kill()
    child.wait()
    child.stdout.close()


def test_a_child_that_outlived_its_end_is_a_lie(marked: tuple[str, subprocess.Popen[bytes]]) -> None:
    key, child = marked
    one = process(state="handled", exit={"log_size": 0}, ended_at=timezone.now() - timedelta(minutes=1))
    Process.objects.filter(pk=one.pk).update(key=key)
    assert Identity.of(child.pid) is not None
    assert told() == [("R4", f"process {key}")]


def test_a_session_that_holds_its_slot_after_its_process_is_a_lie(story: Story, agent: Agent) -> None:
    over = process(state="handled", exit={"log_size": 0}, ended_at=timezone.now() - timedelta(minutes=1))
    one = session(story, agent, state="running", process=over)
    assert told() == [("R4", f"session {one.pk}")]


def test_work_that_no_ref_holds_is_a_lie(
    project: Project, story: Story, agent: Agent, tmp_path: Path
) -> None:
    control = conf.control_path(project.key)
    gits.create_control(control, branch="main")
    empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    git(control, "mktree", stdin=b"")  # the empty tree itself
    person = {"name": "ada", "email": "ada@example.org"}
    commit = commit_tree(control, empty, [], "first", author=person, date=1_700_000_000)
    gits.move_ref(control, gits.branch_ref("main"), commit, None)
    Project.objects.filter(pk=project.pk).update(state="ready", tip=commit)
    assert told() == []
    one = session(story, agent, state="ended", outcome="done", ended_at=timezone.now(), saved=commit)
    Story.objects.filter(pk=story.pk).update(tip=commit)
    assert told() == [("R7", f"session {one.pk}")]
    gits.move_ref(control, gits.session_ref(one.key), commit, None)
    assert told() == []
    Story.objects.filter(pk=story.pk).update(tip="b" * 40)
    assert told() == [("R7", "story web/1")]
