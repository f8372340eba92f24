"""What the doctor mends by itself: once, told in the history, and nothing that is true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from agents.models import Session
from huskies_site import doctoring, rounds
from huskies_site.rounds import Rounds
from pipeline import conf
from pipeline.doctor import HEALED, Healed, Lie, heal
from pipeline.git.control import delete_ref, read_ref
from pipeline.git.names import session_ref
from pipeline.models import Act, Event, EventCounter, Host, Process, StageChange, Story
from pipeline.processes import spawn
from tests import factories
from tests.doctor.lies import late
from tests.e2e.shop import Shop, wait_for, write


@pytest.fixture
def shop(tmp_path: Path, settings: Settings, transactional_db: None) -> Iterator[Shop]:
    settings.HUSKIES_HOME = tmp_path / "data"
    settings.HUSKIES_NO_QUEUE = True
    settings.HUSKIES_UNCONFINED = True
    made = Shop(tmp_path)
    yield made
    made.close()


def healed() -> list[tuple[str, str]]:
    return [(one.rule, one.subject.split()[0]) for one in heal(doctoring.healers())]


def acts() -> int:
    return Act.objects.filter(verb=HEALED).count()


def test_each_lie_that_can_be_mended_is_once_and_the_history_tells_of_it(shop: Shop) -> None:
    story = shop.until_stage(shop.start(shop.open(), [write("a.txt")]), "done")
    shop.server.idle()
    session, control = shop.sessions(story)[0], conf.control_path(story.project.key)
    assert healed() == [] and acts() == 0 and doctoring.lies(0) == []

    Story.objects.filter(pk=story.pk).update(not_before=timezone.now() + timedelta(hours=1))
    EventCounter.objects.update(number=1)
    Session.objects.filter(pk=session.pk).update(cost_usd=7, suspect_since=timezone.now())
    delete_ref(control, session_ref(session.key))
    assert healed() == [
        ("R3", "story"),
        ("R10", "project"),
        ("R7", "session"),
        ("R8", "session"),
        ("R4", "session"),
    ]
    assert doctoring.lies(0) == [] and healed() == [] and acts() == 5
    assert read_ref(control, session_ref(session.key)) == session.saved
    assert EventCounter.objects.get().number == Event.objects.latest("number").number
    assert StageChange.objects.filter(story=story, verb="heal", actor="server").count() == 1


def test_a_slot_that_is_held_for_nothing_is_freed_and_the_work_saved(shop: Shop) -> None:
    story = shop.start(shop.open(), [write("a.txt"), {"say": "half of it"}, wait_for()], [write("b.txt")])
    session = shop.until_line(story, "half of it")
    shop.go(session)
    # Its end was handled, as far as the process knows, and nothing followed.
    shop.server.until(lambda: not spawn.runner_alive(conf.runs(), session.key), what="the runner's end")
    Process.objects.filter(pk=session.process_id or 0).update(state="handled", ended_at=late(), exit={})
    with transaction.atomic():
        assert [lie.rule for lie in doctoring.lies(0) if lie.subject == f"session {session.pk}"] == ["R4"]
    assert ("R4", "session") in healed()
    shop.until_ended(session)
    assert session.saved and healed() == []
    assert StageChange.objects.filter(story=story, verb="heal").count() == 1


def test_what_is_over_and_yet_lives_is_stopped(shop: Shop) -> None:
    story = shop.start(shop.open(), [{"say": "half of it"}, wait_for()])
    session = shop.until_line(story, "half of it")
    supervisor = shop.server.supervisor
    supervisor.drop(supervisor.followed[session.process_id or 0])
    Process.objects.filter(pk=session.process_id or 0).update(state="handled", ended_at=late(), exit={})
    Session.objects.filter(pk=session.pk).update(state="ended", outcome="lost", reason="x", ended_at=late())
    assert ("R4", "process") in healed()
    shop.server.supervisor.wait()
    until = timezone.now() + timedelta(seconds=20)
    while spawn.runner_alive(conf.runs(), session.key):
        assert timezone.now() < until
        heal(doctoring.healers())
    assert not any(rule == "R4" for rule, _ in healed())


def test_a_runner_that_no_row_knows_is_stopped(shop: Shop) -> None:
    story = shop.start(shop.open(), [{"say": "half of it"}, wait_for()])
    session = shop.until_line(story, "half of it")
    supervisor = shop.server.supervisor
    supervisor.drop(supervisor.followed[session.process_id or 0])
    story.delete()
    assert not Process.objects.filter(key=session.key).exists()
    assert ("R4", "process") in healed()
    assert "the database does not know it" in Act.objects.filter(verb=HEALED).latest("pk").why


def test_a_healer_that_fails_stops_no_other(db: None) -> None:
    def fails() -> Iterator[Healed]:
        yield Healed("R1", "a", "half")
        raise RuntimeError("no")

    assert [str(one) for one in heal([fails, lambda: [Healed("R2", "b", "whole")]])] == [
        "R1 a: half",
        "R2 b: whole",
    ]


def test_a_round_tells_what_two_rounds_found_and_the_page_shows_it(
    db: None, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.HUSKIES_HOME = tmp_path
    factories.capacity()
    looks = iter(
        [[Lie("R3", "a", "passing"), Lie("R4", "b", "5 s")], [Lie("R4", "b", "8 s"), Lie("R3", "c", "new")]]
    )
    monkeypatch.setattr(doctoring, "checkers", lambda: [lambda: next(looks)])
    monkeypatch.setattr(doctoring, "healers", lambda: [lambda: [Healed("R1", "x", "mended")]])
    admin, client = factories.person("root", is_superuser=True), Client()
    client.force_login(admin)
    assert "No two rounds are over yet" in client.get(reverse("doctor")).content.decode()
    mine = Rounds()
    for _ in range(2):  # a turn for the healer, one for the checker
        mine.turn()
    assert rounds.last() is None
    for _ in range(2):
        mine.turn()
    said = rounds.last()
    assert said is not None and said["lies"] == [{"rule": "R4", "subject": "b", "sentence": "8 s"}]
    page = client.get(reverse("doctor")).content.decode()
    assert "8 s" in page and "R1: mended" in page and "passing" not in page


def test_every_real_checker_and_healer_runs_in_a_round(db: None, tmp_path: Path, settings: Settings) -> None:
    settings.HUSKIES_HOME = tmp_path
    factories.project()
    Host.objects.update_or_create(name=conf.host(), defaults={"seen_at": timezone.now()})
    mine = Rounds()
    mine.turn()
    while mine.waiting:
        mine.turn()
    assert {rule for rule, _ in mine.before or ()} <= {"R6", "R7"}, mine.before  # its repository is nowhere


def test_the_command_mends_first_and_says_what(db: None, tmp_path: Path, settings: Settings) -> None:
    settings.HUSKIES_HOME = tmp_path
    story = factories.story(factories.project())
    Story.objects.update(not_before=timezone.now() + timedelta(hours=1))
    type(story.project).objects.update(state="preparing")
    with pytest.raises(SystemExit):
        call_command("doctor", "--settle", "0", stdout=StringIO())
    said = StringIO()
    call_command("doctor", "--heal", "--settle", "0", "--json", stdout=said)
    answer = json.loads(said.getvalue())
    assert answer["lies"] == [] and [one["subject"] for one in answer["healed"]] == [f"story {story.label}"]
