"""The doctor: a world in which all is true says so, and each lie that is staged by hand is found under its rule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from agents.models import Session
from agents.services import limiting, pool
from huskies_site import doctoring
from pipeline import conf
from pipeline.doctor import Lie, lasting
from pipeline.git.control import delete_ref, list_refs
from pipeline.git.names import SESSIONS, session_ref
from pipeline.models import GateRun, Host, Merge, Story
from pipeline.services import stories
from tests import factories
from tests.doctor.lies import LIES, Told, dead_but_said_to_run, late, live
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
        Story.objects.filter(pk=other.pk).update(held_for="held for the test")
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


def test_a_world_in_which_all_is_true_has_no_lie_and_each_staged_one_is_found(
    told: Told, subtests: pytest.Subtests
) -> None:
    assert doctoring.lies(0) == []
    for rule, subject, words, way in LIES:
        with subtests.test(f"{rule} {subject}: {words}"), transaction.atomic():
            Host.objects.update(seen_at=timezone.now())  # a server that runs, however slow this machine is
            staged = way(told)
            if staged is None:
                found = doctoring.lies(0)
            else:
                with staged:
                    found = doctoring.lies(0)
            transaction.set_rollback(True)
            matching = [lie for lie in found if lie.subject.startswith(subject) and words in lie.sentence]
            assert [lie.rule for lie in matching] == [rule] * len(matching) and matching, found
            # A row that was changed by hand is one that its history does not tell of (R8).
            assert {lie.rule for lie in found} - {"R8"} == {rule} - {"R8"}, found
        assert doctoring.lies(0) == []


def test_a_story_that_was_taken_up_again_after_it_landed_is_no_lie(told: Told) -> None:
    for verb in ("archive", "restore"):
        stories.perform(told.story, verb, actor=ALICE)
        assert doctoring.lies(0) == []


def test_more_live_sessions_than_a_limit_that_was_lowered_since_are_no_lie(told: Told) -> None:
    scopes = [("server", ""), ("project", "shop"), ("agent", "shop/coder-1"), ("role", "coder"), ("host", "")]
    for scope, name in scopes:
        with transaction.atomic():
            live(told)
            Session.objects.filter(pk=told.session.pk).update(created_at=timezone.now())
            limiting.set_limit(scope, name, 0, actor=ALICE)
            assert [lie for lie in doctoring.lies(0) if lie.rule == "R1"] == []
            Session.objects.filter(pk=told.session.pk).update(created_at=timezone.now())  # claimed after that
            assert [lie.rule for lie in doctoring.lies(0) if lie.rule == "R1"] == ["R1"], scope
            transaction.set_rollback(True)


def test_while_no_server_runs_what_it_will_still_notice_is_no_lie(told: Told) -> None:
    with transaction.atomic():
        Host.objects.update(seen_at=timezone.now())
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
