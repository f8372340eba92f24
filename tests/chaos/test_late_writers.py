"""An old worker that was thought dead and writes late (rules.md, window 29): it changes nothing, and that is logged."""

from __future__ import annotations

import logging
import signal
from typing import Any

import pytest
from django.db import transaction

from pipeline import conf, moves
from pipeline.actors import SERVER
from pipeline.exceptions import StaleFence
from pipeline.models import Project, StageChange, Story
from pipeline.services.stories import perform
from tests import factories
from tests.chaos.conftest import Scene
from tests.chaos.test_crash_points import healed
from tests.factories import ALICE

# The instants of a server's own outside its transactions and launches: in those, whoever comes second waits for the first.
POINTS = (
    "launch-before-spawn",
    "exit-recorded",
    "merge-candidate-recorded",
    "outcome-recorded",
)
MORE_POINTS = (
    "start-committed",
    "launch-before-spawn:2",
    "launch-before-spawn:3",
    "exit-recorded:2",
    "exit-recorded:3",
    "merge-gate-green",
)


@pytest.mark.on_sqlite
@pytest.mark.parametrize(
    "point", [*POINTS, *(pytest.param(point, marks=pytest.mark.long) for point in MORE_POINTS)]
)
def test_a_server_that_was_frozen_and_goes_on_when_another_has_finished_changes_nothing(
    scene: Scene, point: str
) -> None:
    assert scene.work(crash=point, pause=True)[0] == -signal.SIGSTOP
    try:
        first = healed(scene)
    finally:
        status, late = scene.driver.job("resume", scene.home, scene.repo)
    assert status == 0
    assert late == first and first["outcomes"] == ["done"]


def test_a_late_move_of_older_work_changes_no_row_and_is_logged(
    transactional_db: None, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project.objects.create(
        name="web", key=conf.new_key(), source="/srv/web", state="ready", base_branch="main"
    )
    story = factories.story(project)
    with transaction.atomic():
        story = moves.move(story, "start", actor=ALICE)
    seen_by_the_old_worker = Story.objects.get(pk=story.pk)
    perform(story, "hold", actor=ALICE)
    before, rows = facts(story), StageChange.objects.count()
    with caplog.at_level(logging.WARNING, "huskies.moves"):
        for verb, values in (("to_qa", {}), ("block", {"reason": "late"})):
            with pytest.raises(StaleFence), transaction.atomic():
                moves.move(seen_by_the_old_worker, verb, actor=SERVER, fence=story.fence, **values)
    assert facts(story) == before and StageChange.objects.count() == rows
    assert [record.message.partition(" comes from")[0] for record in caplog.records] == [
        f"{story.label}: to qa",
        f"{story.label}: block",
    ]


def facts(story: Story) -> dict[str, Any]:
    return Story.objects.filter(pk=story.pk).values().get()
