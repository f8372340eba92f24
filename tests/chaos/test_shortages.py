"""A full disk, no descriptors, a set-up that is cut off: nothing half-done stays, nobody is charged, and it goes on afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import factories
from tests.chaos.conftest import TURN, Driver, Scene
from tests.chaos.test_crash_points import healed
from tests.e2e.shop import CHECK, project_file, script

pytestmark = pytest.mark.on_sqlite  # the driver's databases are SQLite


def test_a_full_disk_at_the_commit_changes_nothing_and_the_next_start_works(scene: Scene) -> None:
    status, said = scene.driver.job("full disk", scene.home, scene.repo)
    assert status == 0 and said["refused"]
    assert (said["stage"], said["written"]) == ("backlog", 0)
    assert healed(scene)["outcomes"] == ["done"]


def test_without_a_free_descriptor_the_launch_fails_and_is_made_again(scene: Scene) -> None:
    status, said = scene.driver.job("no descriptors", scene.home, scene.repo)
    assert status == 0 and said["state"] != "running"
    outcomes = healed(scene)["outcomes"]
    assert outcomes[-1] == "done" and set(outcomes[:-1]) <= {"not_started"}


@pytest.mark.parametrize("statement", [3, 40, 60, 120])
def test_a_migration_that_is_killed_is_finished_by_the_next_start(
    driver: Driver, tmp_path: Path, statement: int
) -> None:
    home, repo = tmp_path / "data", tmp_path / "shop"
    factories.repository(repo, {".huskies/project.yaml": project_file(), "check.sh": CHECK})
    assert driver.job("cut migration", home, repo, statement=statement)[0] == -9
    assert driver.job("prepare", home, repo, descriptions=[script(TURN)])[0] == 0
    status, said = driver.job("cut migration", home, repo, statement=-1)
    assert status == 0 and said["statements"] > 0
    status, said = driver.job("work", home, repo)
    assert (status, said["stage"], said["lies"]) == (0, "done", [])
