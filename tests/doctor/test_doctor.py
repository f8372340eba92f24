"""The doctor: a world in which all is true says so, and each lie that is staged by hand is found under its rule."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from agents.models import Session
from agents.services import pool
from huskies_site import doctoring
from pipeline import conf
from pipeline.doctor import Lie, lasting
from pipeline.git.control import delete_ref, list_refs, move_ref, read_ref
from pipeline.git.names import SESSIONS, session_ref
from pipeline.models import Capacity, GateRun, Host, LogEvent, Merge, Process, Project, StageChange, Story
from pipeline.processes.runfolder import MARKER
from pipeline.services import stories
from tests import factories
from tests.factories import ALICE
from tests.pipeline.worlds import World

FILE = """\
gate:
  command: test -e button
agents:
  - name: coder-1
    role: coder
    runtime: scripted
    script:
      - write: {path: button, content: red}
      - commit: Add the button
"""
LONG_AGO = timedelta(minutes=5)


@dataclass
class Told:
    """A world after one story was worked by a scripted coder, gated and landed, and another one is in coding."""

    project: Project
    story: Story
    session: Session
    gate: GateRun
    merge: Merge
    other: Story

    @property
    def control(self) -> Path:
        return conf.control_path(self.project.key)

    @property
    def process(self) -> Process:
        assert self.session.process is not None
        return self.session.process


@pytest.fixture
def told(tmp_path: Path, settings: Settings, transactional_db: None) -> Iterator[Told]:
    settings.HUSKIES_HOME = tmp_path / "data"
    settings.HUSKIES_NO_QUEUE = True
    settings.HUSKIES_UNCONFINED = True
    world = World(tmp_path)
    try:
        project = world.add(world.repository({".huskies/project.yaml": FILE, "README.md": "hello\n"}))
        story = factories.story(project)
        pool.start_story(story, actor=ALICE)
        world.until_stage(story, "done")
        world.server.idle()
        other = world.work(project, {"other": "text\n"})
        # Its branch holds the work; the ref would be one of a session that nobody knows.
        control = conf.control_path(project.key)
        for ref in set(list_refs(control, SESSIONS)) - {session_ref(Session.objects.get().key)}:
            delete_ref(control, ref)
        project.refresh_from_db()
        yield Told(
            project, story, Session.objects.get(), GateRun.objects.earliest("pk"), Merge.objects.get(), other
        )
    finally:
        world.close()


# -- lies, each with the way to tell it; what a way leaves in the database is rolled back


Way = Callable[[Told], AbstractContextManager[None] | None]


def late() -> Any:
    return timezone.now() - LONG_AGO


def live(t: Told, **more: Any) -> None:
    Session.objects.filter(pk=t.session.pk).update(state="running", outcome="", ended_at=None, **more)


def second_live_session(t: Told, *, index: str, **other: Any) -> None:
    """Not even a database whose constraint is gone keeps a doubled session from the doctor."""
    live(t)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {index}")
    values = {"role": "coder", "agent": t.session.agent, "story": t.story, **other}
    Session.objects.create(
        project=t.project, key=conf.new_key(), fence=0, runtime="scripted", host="h", **values
    )


def doubled_agent(t: Told) -> None:
    second_live_session(t, index="one_live_session_per_agent", story=t.other)


def doubled_role(t: Told) -> None:
    agent = factories.coder(t.project, 9)
    second_live_session(t, index="one_live_session_per_story_and_role", agent=agent)


def over_the_limit(t: Told) -> None:
    live(t)
    Capacity.objects.update(limit=0)


@contextmanager
def held_lock(key: str) -> Iterator[None]:
    """A runner of that key, as the kernel shows it: somebody holds the lock of its folder."""
    (conf.runs() / key).mkdir(parents=True, exist_ok=True)
    fd = os.open(conf.runs() / key / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def marked_child(key: str) -> Iterator[None]:
    """A real process with the marker of that key; the pipe says when it runs, and ends it."""
    (conf.runs() / key).mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        ["sh", "-c", "echo here; read line"],
        env={MARKER: key, "PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"here\n"
        yield
        child.kill()


def over_and_its_child_lives(t: Told) -> AbstractContextManager[None]:
    Process.objects.filter(pk=t.process.pk).update(ended_at=late())
    return marked_child(t.process.key)


def over_and_its_runner_lives(t: Told) -> AbstractContextManager[None]:
    Process.objects.filter(pk=t.process.pk).update(ended_at=late())
    return held_lock(t.process.key)


def dead_but_said_to_run(t: Told) -> None:
    Process.objects.filter(kind="fetch").update(state="running", started_at=late())


def slot_held_for_nothing(t: Told) -> None:
    live(t)
    Process.objects.update(ended_at=late())


@contextmanager
def without_ref(control: Path, ref: str) -> Iterator[None]:
    commit = read_ref(control, ref)
    assert commit is not None
    delete_ref(control, ref)
    try:
        yield
    finally:
        move_ref(control, ref, commit, None)


@contextmanager
def unknown_ref(control: Path, commit: str) -> Iterator[None]:
    ref = session_ref("f" * 20)
    move_ref(control, ref, commit, None)
    try:
        yield
    finally:
        delete_ref(control, ref)


def a_hole_in_the_log(t: Told) -> None:
    LogEvent.objects.filter(process=t.process, seq=1).delete()


def never_green(t: Told) -> None:
    GateRun.objects.update(verdict="failed")


def lost_work(t: Told) -> None:
    Story.objects.filter(pk=t.other.pk).update(tip="1" * 40)


def landed_and_nobody_knows(t: Told) -> None:
    Story.objects.filter(pk=t.story.pk).update(stage="merge_failure", reason="x")
    Merge.objects.update(state="failed", reason="y")


def landed_without_history(t: Told) -> None:
    Story.objects.filter(pk=t.story.pk).update(stage="coding")
    StageChange.objects.filter(story=t.story, verb="land").delete()


def rows(model: Any, **values: Any) -> Way:
    def change(t: Told) -> None:
        mine = {Session: t.session, GateRun: t.gate, Merge: t.merge, Story: t.story, Project: t.project}
        model.objects.filter(pk=mine[model].pk if model in mine else t.process.pk).update(**values)

    return change


SAVED = "its session's commit, which was squashed and is not on the base branch"
LIES: list[tuple[str, str, str, Way]] = [
    ("R1", "agent", "2 sessions of it are live", doubled_agent),
    ("R1", "story", "2 live sessions of role coder", doubled_role),
    ("R1", "the server", "its limit is 0", over_the_limit),
    ("R2", "session", "is above the fence 0", rows(Story, fence=0)),
    ("R2", "gate run", "is above the fence 0", rows(Story, fence=0)),
    ("R2", "merge", "is above the fence 0", rows(Story, fence=0)),
    ("R2", "process", "is above the fence 0", rows(Story, fence=0)),
    ("R2", "session", "given to a gate run", lambda t: rows(GateRun, fence=t.session.fence)(t)),
    ("R2", "story", "2 gate runs of it carry", lambda t: rows(GateRun, fence=t.merge.fence)(t)),
    ("R3", "session", "without saying how or when", rows(Session, ended_at=None)),
    ("R3", "session", "without a reason", rows(Session, reason="")),
    ("R3", "session", "has an outcome or an end", rows(Session, state="running")),
    ("R3", "gate run", "without a time", rows(GateRun, ended_at=None)),
    ("R3", "merge", "without a reason", rows(Merge, state="failed")),
    ("R3", "story", "no merge of it landed", rows(Merge, state="replaced")),
    ("R3", "process", "without a word about how", rows(Process, exit=None)),
    (
        "R3",
        "process",
        "nothing followed from that",
        lambda t: rows(Process, state="exited", ended_at=late())(t),
    ),
    ("R3", "process", "were never read", rows(Process, offset=0)),
    (
        "R3",
        "process",
        "it says",
        lambda t: LogEvent.objects.filter(process=t.process, seq=1).delete() and None,
    ),
    ("R3", "process", "it says", rows(Process, last_seq=10_000)),
    ("R4", "process", "but its runner lives", over_and_its_runner_lives),
    ("R4", "process", "of it lives", over_and_its_child_lives),
    ("R4", "process", "is dead", dead_but_said_to_run),
    (
        "R4",
        "process",
        "should have been launched",
        lambda t: rows(Process, state="prepared", created_at=late())(t),
    ),
    ("R4", "process", "database does not know it", lambda t: marked_child("e" * 20)),
    ("R4", "process", "its runner lives, and the database", lambda t: held_lock("e" * 20)),
    ("R4", "session", "is not over", rows(Process, state="running")),
    ("R4", "session", "it holds its slot", slot_held_for_nothing),
    ("R5", "merge", "without a green gate", never_green),
    ("R6", "project", "the database says", lambda t: rows(Project, tip=t.session.saved)(t)),
    ("R6", "story", "is not on main", lambda t: rows(Story, landed=t.session.saved)(t)),
    ("R6", "story", "is not on main", rows(Story, landed="1" * 40)),
    ("R6", "merge", "is not on main", lambda t: rows(Merge, candidate=t.session.saved)(t)),
    ("R6", "story", "but it is in merge_failure", landed_and_nobody_knows),
    ("R6", "story", "to which nothing led", rows(Story, stage="coding")),
    ("R6", "story", "its history does not say so", landed_without_history),
    ("R7", "session", "which is not there", lambda t: without_ref(t.control, session_ref(t.session.key))),
    ("R7", "session", "not in the control repository", rows(Session, saved="1" * 40)),
    (
        "R7",
        "story",
        "no ref holds its work",
        lambda t: without_ref(t.control, f"refs/heads/{t.other.branch}"),
    ),
    (
        "R7",
        "story",
        "not in the control",
        lost_work,
    ),
    ("R7", "project", "the database does not know", lambda t: unknown_ref(t.control, t.session.saved)),
]


def test_a_world_in_which_all_is_true_has_no_lie_and_each_staged_one_is_found(
    told: Told, subtests: pytest.Subtests
) -> None:
    assert told.session.saved != told.merge.candidate, SAVED
    assert doctoring.lies(0) == []
    for rule, subject, words, way in LIES:
        with subtests.test(f"{rule} {subject}: {words}"), transaction.atomic():
            staged = way(told)
            if staged is None:
                found = doctoring.lies(0)
            else:
                with staged:
                    found = doctoring.lies(0)
            transaction.set_rollback(True)
            matching = [lie for lie in found if lie.subject.startswith(subject) and words in lie.sentence]
            assert [lie.rule for lie in matching] == [rule] * len(matching) and matching, found
            assert {lie.rule for lie in found} == {rule}, found
        assert doctoring.lies(0) == []


def test_a_story_that_was_taken_up_again_after_it_landed_is_no_lie(told: Told) -> None:
    for verb in ("archive", "restore"):
        stories.perform(told.story, verb, actor=ALICE)
        assert doctoring.lies(0) == []


def test_while_no_server_runs_what_it_will_still_notice_is_no_lie(told: Told) -> None:
    with transaction.atomic():
        dead_but_said_to_run(told)
        assert [lie.rule for lie in doctoring.lies(0)] == ["R4"]
        Host.objects.update(seen_at=late())
        assert doctoring.lies(0) == []
        transaction.set_rollback(True)


def test_a_control_repository_that_is_gone_is_named_and_stops_no_other_look(told: Told) -> None:
    told.control.rename(told.control.with_name("elsewhere"))
    Story.objects.filter(pk=told.story.pk).update(fence=0)
    said = [str(lie) for lie in doctoring.lies(0)]
    assert [
        line for line in said if line.startswith("R6 project shop: its control repository cannot be read")
    ]
    assert [
        line for line in said if line.startswith("R7 project shop: its control repository cannot be read")
    ]
    assert [line for line in said if line.startswith("R2 ")]


def test_a_change_that_is_under_way_is_no_lie_but_one_that_lasts_is() -> None:
    moments = iter(
        [[Lie("R3", "a", "passing"), Lie("R4", "b", "5 s")], [Lie("R4", "b", "8 s"), Lie("R3", "c", "new")]]
    )
    assert lasting([lambda: next(moments)], 0.0) == [Lie("R4", "b", "8 s")]


# -- the command


@pytest.mark.django_db(transaction=True)
def test_the_command_prints_one_line_per_lie_and_ends_with_1() -> None:
    factories.capacity()
    story = factories.story(factories.project())
    Project.objects.update(state="preparing")  # it has no repository that could be looked into
    Story.objects.filter(pk=story.pk).update(stage="done", landed="1" * 40)
    for words, wanted in (
        ([], "R3 story web/1: it is done, but no merge of it landed.\n"),
        (
            ["--json"],
            [{"rule": "R3", "subject": "story web/1", "sentence": "it is done, but no merge of it landed."}],
        ),
    ):
        said = StringIO()
        with pytest.raises(SystemExit) as end:
            call_command("doctor", "--settle", "0", *words, stdout=said)
        assert end.value.code == 1
        found = json.loads(said.getvalue()) if words else said.getvalue().splitlines(keepends=True)[0]
        assert found == wanted


@pytest.mark.django_db(transaction=True)
def test_a_sane_world_is_said_to_be_sane_with_0_and_an_empty_list(settings: Settings, tmp_path: Path) -> None:
    settings.HUSKIES_HOME = tmp_path
    factories.capacity()
    said, as_json = StringIO(), StringIO()
    call_command("doctor", stdout=said)
    call_command("doctor", "--json", stdout=as_json)
    assert said.getvalue().startswith(
        "Database, logs, git and processes tell the same.\nThe server does not run here"
    )
    assert json.loads(as_json.getvalue()) == []


@pytest.mark.django_db(transaction=True)
def test_the_environment_lists_what_this_machine_has() -> None:
    factories.capacity()
    said = StringIO()
    call_command("doctor", "--environment", "--json", stdout=said)
    pieces = {piece["name"]: piece for piece in json.loads(said.getvalue())}
    assert set(pieces) == {"python", "git", "confinement", "database", "server", "claude-code", "scripted"}
    assert pieces["python"]["found"] == ".".join(map(str, sys.version_info[:3]))
    assert pieces["confinement"]["found"] == "bubblewrap" or pieces["confinement"]["remedy"]
    assert "not an AI" in pieces["scripted"]["found"]
    assert pieces["server"]["remedy"] == "Start it with `./huskies up`."
    Host.objects.update_or_create(name=conf.host(), defaults={"seen_at": timezone.now()})
    assert [p.found for p in doctoring.environment() if p.name == "server"] == [f"running on {conf.host()}"]


def test_before_the_first_up_the_environment_is_told_and_the_rest_says_what_to_do(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HUSKIES_HOME": str(tmp_path / "none"), "DATABASE_URL": ""}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "manage.py", "doctor", *words]
        return subprocess.run(
            argv,
            cwd=django_settings.BASE_DIR,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    told = run("--environment")
    assert told.returncode == 1 and told.stderr == ""
    assert "Start the server once with `./huskies up`" in told.stdout and "git: " in told.stdout
    refused = run()
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.startswith("huskies: There is no huskies at") and refused.stderr.count("\n") == 1
