"""Ways to make a true world lie, each with the rule under which the doctor must find it."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import connection
from django.utils import timezone

from agents.models import Agent, LedgerRow, Limit, PermissionRequest, Session
from pipeline import conf
from pipeline.git.control import delete_ref, move_ref, read_ref
from pipeline.git.names import session_ref
from pipeline.models import (
    Event,
    EventCounter,
    GateRun,
    LogPart,
    Merge,
    Process,
    Project,
    StageChange,
    Story,
)
from pipeline.processes.runfolder import MARKER
from tests import factories

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


Way = Callable[[Told], AbstractContextManager[None] | None]


def late() -> Any:
    return timezone.now() - LONG_AGO


def ahead() -> Any:
    return timezone.now() + timedelta(days=1)


def another_session(t: Told) -> None:
    ended = {"state": "ended", "outcome": "done", "reason": "x", "ended_at": timezone.now()}
    Session.objects.create(
        project=t.project,
        story=t.story,
        agent=t.session.agent,
        role="coder",
        key=conf.new_key(),
        fence=0,
        **ended,
    )


def live(t: Told, **more: Any) -> None:
    Session.objects.filter(pk=t.session.pk).update(state="running", outcome="", ended_at=None, **more)
    Process.objects.update(ended_at=timezone.now())  # over just now: nothing is late yet


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
    Limit.objects.update(most=0)


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


def ended_and_its_process_goes_on(t: Told) -> None:
    Session.objects.filter(pk=t.session.pk).update(ended_at=late())
    Process.objects.filter(pk=t.process.pk).update(state="running", started_at=late())


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
    LogPart.objects.filter(process=t.process, first_seq=1).delete()


def never_green(t: Told) -> None:
    GateRun.objects.update(verdict="failed")


def lost_work(t: Told) -> None:
    Story.objects.filter(pk=t.other.pk).update(tip="1" * 40)


def landed_and_nobody_knows(t: Told) -> None:
    Story.objects.filter(pk=t.story.pk).update(stage="merge_failure", reason="x")
    Merge.objects.update(state="failed", reason="y")


def landed_without_history(t: Told) -> None:
    Story.objects.filter(pk=t.story.pk).update(stage="coding", held_for="x")
    StageChange.objects.filter(story=t.story, verb="land").delete()


def rows(model: Any, **values: Any) -> Way:
    def change(t: Told) -> None:
        mine = {Session: t.session, GateRun: t.gate, Merge: t.merge, Story: t.story, Project: t.project}
        model.objects.filter(pk=mine[model].pk if model in mine else t.process.pk).update(**values)

    return change


def runs_and_has_ended(t: Told) -> None:
    Session.objects.filter(pk=t.session.pk).update(state="running")
    Process.objects.update(ended_at=timezone.now())


def asks_after_its_end(t: Told) -> None:
    PermissionRequest.objects.create(
        session=t.session,
        request_id="r",
        tool="Bash",
        asked_at=timezone.now(),
        deadline=timezone.now() + LONG_AGO,
    )


@contextmanager
def a_copy_of_nobody() -> Iterator[None]:
    folder = conf.copy_path("d" * 20)
    folder.mkdir(parents=True)
    yield
    folder.rmdir()


def wanted_by_nobody(t: Told) -> None:
    """A story that waits, while its coder is idle."""
    Story.objects.filter(pk=t.other.pk).update(held_for="", stage_at=late(), waiting_since=late())


def waits_without_a_word(t: Told) -> None:
    wanted_by_nobody(t)
    Agent.objects.update(paused_for="told to rest")


def ready_to_merge(t: Told) -> None:
    Story.objects.filter(pk=t.other.pk).update(held_for="", stage="merge", stage_at=late())


def moved_by_hand(t: Told) -> None:
    Story.objects.filter(pk=t.other.pk).update(stage="qa")


def told_twice(t: Told) -> None:
    for change in StageChange.objects.filter(story=t.story, verb="start"):
        StageChange.objects.create(
            story=t.story, verb="start", from_stage=change.from_stage, to_stage=change.to_stage, actor="alice"
        )


def a_counter_that_stands_behind(t: Told) -> None:
    EventCounter.objects.update(number=1)


def a_missing_event(t: Told) -> None:
    Event.objects.filter(number=2).delete()


def an_unbooked_request(t: Told) -> None:
    LedgerRow.objects.create(session=t.session, seq=9999, model="m", cost_usd=1, at=timezone.now())
    Session.objects.filter(pk=t.session.pk).update(cost_usd=1)


def more_retries_than_there_are(t: Told) -> None:
    Story.objects.filter(pk=t.other.pk).update(retries=99)


# `session.saved` is the commit of the session: it was squashed to land, and is not on the base branch.
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
    ("R3", "session", "has an outcome or an end", runs_and_has_ended),
    ("R3", "session", "still waits for an answer", asks_after_its_end),
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
        lambda t: LogPart.objects.filter(process=t.process, first_seq=1).delete() and None,
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
    ("R4", "session", "is not over", ended_and_its_process_goes_on),
    ("R4", "session", "it holds its slot", slot_held_for_nothing),
    ("R5", "merge", "without a green gate", never_green),
    ("R6", "project", "the database says", lambda t: rows(Project, tip=t.session.saved)(t)),
    ("R6", "story", "is not on main", lambda t: rows(Story, landed=t.session.saved)(t)),
    ("R6", "story", "is not on main", rows(Story, landed="1" * 40)),
    ("R6", "merge", "is not on main", lambda t: rows(Merge, candidate=t.session.saved)(t)),
    ("R6", "story", "but it is in merge_failure", landed_and_nobody_knows),
    ("R6", "story", "to which nothing led", rows(Story, stage="coding", held_for="x")),
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
    ("R7", "copy", "made it", lambda t: a_copy_of_nobody()),
    ("R8", "story", "its history goes from", told_twice),
    ("R8", "story", "and its history led to coding", moved_by_hand),
    ("R8", "story", "its history tells of 1 claims, and it has 2", lambda t: another_session(t)),
    ("R8", "session", "are not those of its requests", rows(Session, cost_usd=7)),
    ("R8", "project", "of that stand in its spending", an_unbooked_request),
    ("R3", "story", "a timer of it goes off", rows(Story, not_before=ahead())),
    ("R3", "merge", "is to be tried again", rows(Merge, next_try=ahead())),
    ("R9", "story", "is idle and could take it", wanted_by_nobody),
    ("R9", "story", "nothing says why", waits_without_a_word),
    ("R9", "story", "no merge began", ready_to_merge),
    ("R10", "project", "its counter stands at 1", a_counter_that_stands_behind),
    ("R10", "project", "are missing", a_missing_event),
    ("R11", "story", "99 retries were used", more_retries_than_there_are),
    ("R11", "story", "99 of its sessions crashed", rows(Story, crashes=99)),
    ("R12", "stories", "are dated ahead", rows(Story, created_at=ahead())),
    ("R12", "sessions", "are dated ahead", rows(Session, ended_at=ahead())),
]
