"""Hosts that fall silent, come back, are given up, drain: two hosts take turns in the test's own process, with one data folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from agents.models import Session
from agents.services import assigning, hosting
from huskies_site import doctoring
from pipeline import conf
from pipeline.actors import SERVER
from pipeline.doctor import heal
from pipeline.exceptions import Refused
from pipeline.git.control import read_ref
from pipeline.git.names import session_ref
from pipeline.models import Act, Capacity, Host, Process, StageChange
from pipeline.processes import spawn
from pipeline.services import hosts, processes
from pipeline.supervisor import Supervisor
from tests import factories
from tests.e2e.shop import Shop, wait_for, write
from tests.factories import ALICE

NORTH, SOUTH = "north", "south"
TURN = [write("a.txt"), {"say": "half of it"}, wait_for(), write("b.txt")]
REST = [write("c.txt")]


@dataclass
class Two:
    """`be(name)`: what runs from now on runs on that host. `seconds`: the watcher's clock."""

    shop: Shop
    settings: Settings
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.watch = hosts.Watch(seconds=lambda: self.seconds)
        self.be(NORTH)

    def be(self, name: str) -> None:
        self.settings.HUSKIES_HOST = name
        supervisor = self.shop.server.supervisor
        for followed in list(supervisor.followed.values()):
            supervisor.drop(followed)
        hosts.beat()

    def silence(self, seconds: float) -> None:
        """The watcher sees so many seconds pass without a beat of the other host."""
        self.watch.look()
        self.seconds += seconds
        self.watch.look()

    def half_done(self) -> Session:
        """A session of NORTH in the middle of its turn."""
        story = self.shop.start(self.shop.open(), TURN, REST)
        return self.shop.until_line(story, "half of it")


@pytest.fixture
def two(shop: Shop, settings: Settings) -> Two:
    return Two(shop, settings)


def acts(verb: str) -> list[str]:
    return list(Act.objects.filter(verb=verb).values_list("subject", flat=True))


def fresh(session: Session) -> Session:
    return Session.objects.select_related("story__project", "process").get(pk=session.pk)


def test_a_silent_hosts_work_is_kept_for_it_and_goes_on_when_it_is_heard_of(two: Two) -> None:
    session = two.half_done()
    two.be(SOUTH)
    two.silence(29)
    assert fresh(session).suspect_since is None
    two.silence(31)
    assert fresh(session).suspect_since is not None and fresh(session).state == "running"
    assert "nothing is heard of host north" in hosts.refusal(NORTH) and hosts.refusal(SOUTH) == ""
    # It keeps slot and claim: nothing starts in its place.
    assert assigning.auto_assign() == 0 and Session.objects.count() == 1
    two.silence(31)
    assert acts("host.suspect") == ["host north"]
    two.be(NORTH)
    assert (
        fresh(session).suspect_since is None
        and hosts.refusal(NORTH) == ""
        and acts("host.back") == ["host north"]
    )
    two.shop.go(session)
    story = two.shop.until_stage(session.story, "done")
    assert [one.outcome for one in two.shop.sessions(story)] == ["done"]
    two.shop.settled()


def test_a_host_that_is_given_up_is_begun_anew_elsewhere_and_its_late_work_changes_no_story(two: Two) -> None:
    session = two.half_done()
    fence = session.story.fence
    two.be(SOUTH)
    two.silence(31)
    two.silence(django_settings.HUSKIES_HOST_LOST_AFTER)
    lost, story = fresh(session), two.shop.fresh(session.story)
    assert (lost.state, lost.outcome, acts("host.lost")) == ("ended", "host_lost", ["host north"])
    assert "Host north was given up by server" in lost.reason
    assert (story.stage, story.retries, story.crashes, story.fence) == ("coding", 0, 0, fence + 1)
    story = two.shop.until_stage(story, "done")
    assert [(one.host, one.outcome) for one in two.shop.sessions(story)] == [
        (NORTH, "host_lost"),
        (SOUTH, "done"),
    ]
    # The old agent still lives, ends well, and is heard: by rows that are over.
    assert spawn.runner_alive(conf.runs(), session.key)
    before = (story.tip, story.landed, story.fence, story.stage)
    two.be(NORTH)
    assert acts("host.back") == ["host north"] and Host.objects.get(name=NORTH).lost_at is None
    stale = Process.objects.get(pk=session.process_id or 0)
    follower = Supervisor(tick_seconds=0.005)
    follower.scan()
    assert not follower.followed and not processes.launch(stale.pk)
    follower.close()
    Process.objects.filter(pk=stale.pk).update(ended_at=stale.created_at - timedelta(hours=1))
    healed = [str(one) for one in heal(doctoring.healers())]
    assert any("its runner lived" in one for one in healed), healed
    two.shop.server.until(lambda: not spawn.runner_alive(conf.runs(), session.key), what="the runner's end")
    assert hosting.save_late_work() == 1
    two.shop.server.idle()
    saved, story = fresh(session), two.shop.fresh(session.story)
    control = conf.control_path(story.project.key)
    assert saved.saved and read_ref(control, session_ref(session.key)) == saved.saved
    assert (story.tip, story.landed, story.fence, story.stage) == before
    assert StageChange.objects.filter(story=story, verb="work_saved").count() == 1
    assert hosting.save_late_work() == 0
    two.shop.settled()
    assert doctoring.lies(0) == []


def test_a_gate_of_a_host_that_is_given_up_runs_again_elsewhere(two: Two) -> None:
    project = two.shop.open(files={"check.sh": "test -e go || sleep 600\n"})
    story = two.shop.start(project, [write("a.txt")])
    two.shop.server.until(
        lambda: Process.objects.filter(kind="gate", state="running").exists(), what="a gate that runs"
    )
    gate = Process.objects.get(kind="gate")
    two.be(SOUTH)
    hosts.suspect(Host.objects.get(name=NORTH))
    hosts.give_up(NORTH, actor=ALICE)
    again = Process.objects.filter(kind="gate").exclude(pk=gate.pk).get()
    assert (again.host, Process.objects.get(pk=gate.pk).state) == (SOUTH, "handled")
    assert two.shop.fresh(story).stage == "coding"
    processes.stop(gate, grace=0.1)


def test_only_a_host_that_is_not_heard_of_can_be_given_up(two: Two) -> None:
    factories.capacity()
    with pytest.raises(Refused, match="is heard of, so it is not lost"):
        hosts.give_up(NORTH, actor=ALICE)
    with pytest.raises(Refused, match=r"no host 'west'\. There are: north"):
        hosts.give_up("west", actor=ALICE)
    two.be(SOUTH)
    hosts.suspect(Host.objects.get(name=NORTH))
    assert hosts.give_up(NORTH, actor=ALICE, why="its disk is dead").lost_at is not None
    assert Act.objects.get(verb="host.lost").why == "its disk is dead"
    with pytest.raises(Refused, match="was given up already"):
        hosts.give_up(NORTH, actor=ALICE)


def test_a_beat_between_the_look_and_the_verdict_saves_the_host(two: Two) -> None:
    factories.capacity()
    seen = Host.objects.get(name=NORTH)
    two.be(NORTH)
    assert not hosts.suspect(seen)
    with pytest.raises(Refused, match="is heard of"):
        hosts.give_up(NORTH, actor=SERVER, unheard=seen.seen_at)


def test_a_draining_host_finishes_what_runs_and_takes_nothing_new(two: Two) -> None:
    session = two.half_done()
    hosts.drain(NORTH, actor=ALICE, why="a new disk")
    waiting = two.shop.start(session.project, REST)
    assert "host north is draining" in waiting.waiting_for
    two.shop.go(session)
    two.shop.until_stage(session.story, "done")
    two.shop.server.idle()
    assert hosts.idle(NORTH) and assigning.auto_assign() == 0
    with pytest.raises(Refused, match="is draining already"):
        hosts.drain(NORTH, actor=ALICE)
    hosts.resume(NORTH, actor=ALICE)
    two.shop.until_stage(waiting, "done")
    assert acts("host.drain") == acts("host.resume") == ["host north"]
    two.shop.settled()


def test_the_drain_of_up_ends_with_the_next_plain_up_and_a_persons_does_not(two: Two) -> None:
    factories.capacity()

    def draining() -> bool:
        return Host.objects.get(name=NORTH).draining

    hosts.drain_at_start(True, ALICE)
    assert draining()
    hosts.drain_at_start(False, ALICE)
    assert not draining()
    hosts.drain(NORTH, actor=ALICE)
    hosts.drain_at_start(True, ALICE)
    hosts.drain_at_start(False, ALICE)
    assert draining()


@pytest.mark.on_sqlite
def test_a_machine_that_was_renamed_goes_on_with_what_ran_under_its_old_name(two: Two) -> None:
    session = two.half_done()
    two.settings.HUSKIES_HOST = SOUTH
    assert hosts.take_over_names() == [NORTH]
    two.be(SOUTH)
    two.shop.go(session)
    story = two.shop.until_stage(session.story, "done")
    assert [one.outcome for one in two.shop.sessions(story)] == ["done"]
    assert hosts.take_over_names() == []
    two.shop.settled()


def told(*words: str) -> Any:
    said = StringIO()
    call_command("host", *words, "--json", stdout=said)
    return json.loads(said.getvalue())


def test_commands_and_buttons_drain_and_resume(two: Two) -> None:
    factories.capacity()
    assert [(h["name"], h["state"]) for h in told("list")] == [(NORTH, "in use")]
    assert told("drain", "--why", "a new disk")["state"] == "draining"
    admin, client = factories.person("root", is_superuser=True), Client()
    client.force_login(admin)
    page = client.get(reverse("hosts")).content.decode()
    assert "Take work again" in page and "a new disk" in page and "Give it up" not in page
    assert (
        client.post(reverse("host-do"), {"host": NORTH, "verb": "resume", "why": "done"}).status_code == 302
    )
    assert told("list")[0]["state"] == "in use"
    assert Act.objects.get(verb="host.resume").actor == "root"
    assert client.post(reverse("host-do"), {"host": NORTH, "verb": "lost"}).status_code == 409
    assert client.post(reverse("host-do"), {"host": NORTH, "verb": "burn"}).status_code == 409
    assert Capacity.objects.count() == 1
