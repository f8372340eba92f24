"""Set clocks, other boots, and processes that were stopped for a while and go on: they delay at most, and what they write late changes nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from agents.models import Credential, Session
from agents.services import sessions
from huskies_site import doctoring
from pipeline import clock, conf, moves
from pipeline.actors import SERVER
from pipeline.exceptions import StaleFence
from pipeline.models import Act, Host, Merge, Process, Story
from pipeline.processes import control, spawn
from pipeline.processes.identity import Identity, send_signal
from pipeline.services import hosts, processes
from pipeline.supervisor import Supervisor
from tests import factories, logs
from tests.e2e.shop import Shop, wait_for, write
from tests.factories import ALICE

DAY = timedelta(days=1)
TURN = [write("a.txt"), {"say": "half of it"}, wait_for(), write("b.txt")]


@dataclass
class WallClock:
    """The wall clock of this process, which a test sets."""

    shift: timedelta = timedelta(0)

    def set(self, by: timedelta) -> None:
        self.shift += by


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Iterator[WallClock]:
    made, real = WallClock(), timezone.now

    def now() -> datetime:
        return real() + made.shift

    monkeypatch.setattr(timezone, "now", now)
    yield made


def runner_of(session: Session) -> Identity:
    identity = spawn.read_identity(conf.runs(), session.key)
    assert identity is not None
    return identity


@pytest.mark.parametrize("by", [DAY, -DAY], ids=["ahead", "back"])
def test_a_clock_that_is_set_by_a_day_ends_nothing_and_hides_nothing(
    shop: Shop, wall: WallClock, by: timedelta
) -> None:
    project = shop.open(coders=2)
    story = shop.start(project, TURN)
    session = shop.until_line(story, "half of it")
    hosts.beat()
    watch = hosts.Watch()
    Host.objects.create(name="other", seen_at=timezone.now())
    watch.look()
    wall.set(by)
    # Neither the own host nor another is taken for dead, before any new beat.
    watch.look()
    assert hosts.runs_here() and not Host.objects.exclude(suspect_since=None).exists()
    hosts.beat()
    hosts.beat()
    assert Act.objects.filter(verb="clock.set").count() == 1
    # What was prepared before the jump is launched after it, and a second story begins and lands.
    second = shop.start(project, [write("c.txt")])
    shop.until_stage(second, "done")
    shop.go(session)
    story = shop.until_stage(story, "done")
    assert [one.outcome for one in shop.sessions(story)] == ["done"]
    assert (story.retries, story.crashes) == (0, 0)
    shop.settled()
    rules = {lie.rule for lie in doctoring.lies(0)}
    assert rules == (
        {"R12"} if by < timedelta(0) else set()
    )  # dates ahead are told, and nothing else is wrong


def test_what_was_prepared_before_the_clock_was_set_back_is_launched(
    shop: Shop, wall: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = shop.open()
    story = shop.start(project, [write("a.txt")])
    process = shop.process(shop.sessions(story)[0])
    wall.set(-DAY)
    supervisor, seconds = Supervisor(tick_seconds=0.001), [1000.0]
    monkeypatch.setattr("pipeline.supervisor.time.monotonic", lambda: seconds[0])
    try:
        supervisor.resolve_launches()
        assert Process.objects.get(pk=process.pk).state == "prepared"
        seconds[0] += 2.5
        supervisor.resolve_launches()
        assert Process.objects.get(pk=process.pk).state == "running"
    finally:
        monkeypatch.undo()
        supervisor.close()
    processes.stop(process, grace=0.1)


def test_a_wait_keeps_its_length_when_the_clock_is_set_back_and_ends_early_when_ahead(
    shop: Shop, wall: WallClock
) -> None:
    factories.capacity()
    hosts.beat()
    now = timezone.now()
    story = factories.story(factories.project("web"))
    Story.objects.filter(pk=story.pk).update(not_before=now + timedelta(minutes=5))
    credential = Credential.objects.create(name="key", paused_until=now + timedelta(minutes=5))
    wall.set(-DAY)
    hosts.beat()
    story.refresh_from_db()
    credential.refresh_from_db()
    for until in (story.not_before, credential.paused_until):
        assert until is not None and timedelta(minutes=4) < until - timezone.now() <= timedelta(minutes=5)
    wall.set(2 * DAY)
    hosts.beat()
    story.refresh_from_db()
    assert story.not_before is not None and story.not_before < timezone.now()
    assert [act.why.split(".")[0] for act in Act.objects.filter(verb="clock.set")] == [
        "The wall clock was set back by 86400 s", "The wall clock was set ahead by 172800 s",
    ]  # fmt: skip
    assert not Merge.objects.exists()


def test_a_clock_that_is_only_steered_is_not_set(shop: Shop, wall: WallClock) -> None:
    hosts.beat()
    wall.set(timedelta(seconds=2))
    hosts.beat()
    assert not Act.objects.exists()


def test_a_dead_server_is_dead_whatever_the_clock_says(
    shop: Shop, wall: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.beat()
    assert hosts.runs_here()
    later = clock.boot_seconds() + 11
    monkeypatch.setattr(clock, "boot_seconds", lambda: later)
    assert not hosts.runs_here()
    wall.set(-DAY)  # by the wall clock its last beat lies ahead
    assert not hosts.runs_here()


def test_the_last_beat_of_another_boot_is_silence_and_no_set_clock(shop: Shop, wall: WallClock) -> None:
    hosts.beat()
    file = conf.home() / hosts.BEAT_FILE
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"boot_id": "the boot before"}))
    assert not hosts.runs_here()
    wall.set(DAY)
    hosts.beat()
    assert hosts.runs_here() and not Act.objects.exists()


# -- stopped, and continued ------------------------------------------------------------------------------------------


def test_a_runner_that_was_stopped_is_waited_for_and_goes_on(shop: Shop) -> None:
    story = shop.start(shop.open(), TURN)
    session = shop.until_line(story, "half of it")
    runner = runner_of(session)
    assert send_signal(runner, signal.SIGSTOP)
    try:
        for _ in range(20):
            shop.server.step()
        # It holds its lock, so it lives: neither lost nor replaced, however long it says nothing.
        assert Session.objects.get().state == "running" and spawn.runner_alive(conf.runs(), session.key)
        assert doctoring.lies(0) == []
    finally:
        assert send_signal(runner, signal.SIGCONT)
    shop.go(session)
    shop.until_stage(story, "done")
    shop.settled()


def test_a_stop_that_a_stopped_runner_does_not_hear_is_said_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = shop.start(shop.open(), TURN)
    session = shop.until_line(story, "half of it")
    runner = runner_of(session)
    real, asked = control.ask, []

    def impatient(*words: object, **more: object) -> object:
        asked.append(1)
        return real(*words, **{**more, "timeout": 0.2})  # type: ignore[arg-type]

    monkeypatch.setattr(control, "ask", impatient)
    assert send_signal(runner, signal.SIGSTOP)
    try:
        from agents.services import pool

        pool.stop_story(story, actor=ALICE)
        session.refresh_from_db()
        assert session.state == "running" and asked  # "stopped" is said only when it is true
    finally:
        assert send_signal(runner, signal.SIGCONT)
    session = shop.until_ended(session)
    assert session.outcome == "stopped" and session.saved
    shop.settled()


def test_a_supervisor_that_slept_while_another_followed_stores_nothing_twice(shop: Shop) -> None:
    """What SIGSTOP does to it: its rows are as old as its sleep when it goes on."""
    story = shop.start(shop.open(), TURN)
    session = shop.until_line(story, "half of it")
    sleeper = Supervisor(tick_seconds=0.001)
    sleeper.scan()
    assert list(sleeper.followed) == [session.process_id]
    shop.go(session)
    shop.until_stage(story, "done")
    before = Process.objects.get(pk=session.process_id or 0)
    events = len(logs.events(before))
    try:
        sleeper.follow()
        sleeper.look_for_ends()
        after = Process.objects.get(pk=session.process_id or 0)
        assert (after.state, after.offset, after.last_seq, len(logs.events(after))) == (
            "handled",
            before.offset,
            before.last_seq,
            events,
        )
        assert sleeper.followed == {}
    finally:
        sleeper.close()
    shop.settled()
    assert doctoring.lies(0) == []


def test_a_worker_that_slept_changes_nothing_by_what_it_had_in_hand(shop: Shop) -> None:
    """Its story, process and session are rows of the time before its sleep; the fence and the states stand in each WHERE."""
    story = shop.start(shop.open(), TURN)
    session = shop.until_line(story, "half of it")
    old_story, old_process = shop.fresh(story), Process.objects.get(pk=session.process_id or 0)
    old_session = Session.objects.get(pk=session.pk)
    shop.go(session)
    done = shop.until_stage(story, "done")
    shop.server.idle()
    with pytest.raises(StaleFence), transaction.atomic():
        Story.objects.filter(pk=story.pk).update(stage=old_story.stage)
        moves.move(old_story, "to_merge", actor=SERVER, fence=old_story.fence)
    assert not processes.launch(old_process.pk) and not processes.adopt(old_process, runner_like(old_process))
    processes.handle_end(old_process.pk)
    with transaction.atomic():
        assert not sessions.close(old_session, outcome="crashed", reason="late", saved="")
    now = shop.fresh(story)
    assert (now.stage, now.fence, now.landed) == ("done", done.fence, done.landed)
    assert Session.objects.get(pk=session.pk).outcome == "done"


def runner_like(process: Process) -> Identity:
    return Identity(process.pid or 0, process.start_time or 0, process.boot_id)


def test_nobody_is_asked_by_a_bare_pid(shop: Shop, settings: Settings) -> None:
    """A row with this test's own number and another start time: it is taken for dead, and not signalled."""
    story = shop.start(shop.open(), TURN)
    session = shop.until_line(story, "half of it")
    process = Process.objects.get(pk=session.process_id or 0)
    me = Identity.of(os.getpid())
    assert me is not None
    stranger = Identity(me.pid, me.start_time - 1, me.boot_id)
    assert not send_signal(stranger, signal.SIGKILL)
    Process.objects.filter(pk=process.pk).update(pid=me.pid, start_time=stranger.start_time)
    # The lock says that the runner lives, whatever number the row holds.
    shop.server.supervisor.drop(shop.server.supervisor.followed[process.pk])
    shop.server.step()
    assert Session.objects.get(pk=session.pk).state == "running"
    shop.go(session)
    shop.until_stage(story, "done")
    shop.settled()
