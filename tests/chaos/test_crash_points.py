"""Each named instant of the crash table: whoever is killed there, the next start heals it, and nobody is charged for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.processes.crashpoint import GIT_CRASH_POINTS
from pipeline.processes.runner_start import CRASH_POINTS as RUNNER_CRASH_POINTS
from tests.chaos.conftest import TURN, Scene
from tests.e2e.shop import script, wait_for
from tests.factories import git

pytestmark = pytest.mark.on_sqlite  # the driver's databases are SQLite, whatever the run is on

ROOT = Path(__file__).resolve().parents[2]

SERVER_POINTS = (
    "start-committed",
    "claim-inside-transaction",
    "launch-before-spawn",
    "launch-after-spawn",
    "supervisor-in-batch",
    "exit-recorded",
    "end-before-handler",
    "end-inside-transaction",
    "outcome-inside-transaction",
    "merge-candidate-recorded",
    "merge-gate-green",
    "merge-before-land",
    "merge-landed-unrecorded",
    "outcome-recorded",
    "copy-in-trash",
)
# These are passed for every process of a story: agent, gate, two deletes, candidate, push.
REPEATED = (
    "launch-before-spawn",
    "launch-after-spawn",
    "exit-recorded",
    "end-before-handler",
    "end-inside-transaction",
)
LATER = [f"{point}:{nth}" for point in REPEATED for nth in (2, 3, 4, 5, 6)]
LATER += [f"supervisor-in-batch:{nth}" for nth in (2, 3, 5, 8)]
# The first child of an agent's runner is its checkout, the second is the agent.
OF_THE_AGENT = ("runner-child-started:2", "runner-child-exited:2")
STOP_POINT = "stop-requested"
DELETE_POINTS = ("delete-asked", "delete-refs-gone", "delete-inside-transaction", "delete-committed")
OF_INTAKE = [point for point in GIT_CRASH_POINTS if point.startswith("intake-")]
OF_MERGE = [point for point in GIT_CRASH_POINTS if point not in OF_INTAKE]


def victims(point: str) -> list[tuple[str, str]]:
    return [(point.partition("-")[0], point)]


def healed(scene: Scene, **more: object) -> dict[str, Any]:
    """The next start, and all that must be true when the story is done."""
    status, said = scene.work(**more)
    assert status == 0
    assert (said["stage"], said["retries"], said["lies"], said["strays"]) == ("done", 0, [], [])
    assert (said["copies"], said["trash"]) == ([], [])
    assert said["landed"] == git("rev-parse", "main", cwd=scene.repo)
    assert git("rev-list", "--count", "main", cwd=scene.repo) == "2", "it landed once"
    assert git("status", "--porcelain", cwd=scene.repo) == ""
    assert sorted(path.name for path in scene.repo.glob("?.txt")) == ["a.txt", "b.txt"]
    return said


def test_every_crash_point_of_the_code_is_killed_at_here() -> None:
    found = set(RUNNER_CRASH_POINTS)
    for folder in ("pipeline", "agents", "huskies_site"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(re.findall(r'crashpoint\(\s*"([a-z-]+)"', path.read_text(encoding="utf-8")))
    assert found == {*SERVER_POINTS, *DELETE_POINTS, STOP_POINT, *GIT_CRASH_POINTS, *RUNNER_CRASH_POINTS}


@pytest.mark.parametrize("point", SERVER_POINTS)
def test_a_server_that_is_killed_costs_its_agent_nothing(scene: Scene, point: str) -> None:
    assert scene.work(crash=point)[0] == -9
    said = healed(scene)
    assert (said["outcomes"], said["cut"]) == (["done"], 0)


@pytest.mark.long
@pytest.mark.parametrize("point", LATER)
def test_a_server_that_is_killed_later_costs_its_agent_nothing(scene: Scene, point: str) -> None:
    assert scene.work(crash=point)[0] == -9
    assert healed(scene)["outcomes"] == ["done"]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with the server"])
@pytest.mark.parametrize("point", OF_MERGE)
def test_git_work_that_is_killed_is_done_again(scene: Scene, point: str, alone: bool) -> None:
    said = killed(scene, victims(point), alone)
    assert (said["outcomes"], said["killed"]) == (["done"], [point.partition("-")[0]])


def killed(scene: Scene, of: list[tuple[str, str]], alone: bool) -> dict[str, Any]:
    """The story's facts after these children were killed, and unless `alone` the server with the last of them."""
    if alone:
        return healed(scene, victims=of)
    assert scene.work(victims=of, alone=False)[0] == -9
    return healed(scene)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with the server"])
@pytest.mark.parametrize("point", OF_INTAKE)
def test_a_sessions_last_step_that_is_killed_is_done_again_by_an_intake(
    scene: Scene, point: str, alone: bool
) -> None:
    said = killed(scene, [("agent", point)], alone)
    assert said["outcomes"] == ["done"] and "intake" in said["kinds"] and said["killed"] == []


def test_a_session_that_ends_by_itself_needs_no_intake(scene: Scene) -> None:
    said = healed(scene)
    assert said["outcomes"] == ["done"] and "intake" not in said["kinds"]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with the server"])
@pytest.mark.parametrize("point", OF_INTAKE)
def test_an_intake_that_is_killed_is_done_again(scene: Scene, point: str, alone: bool) -> None:
    said = killed(scene, [("agent", "intake-snapshot-done"), ("intake", point)], alone)
    assert (said["outcomes"], said["killed"]) == (["done"], ["intake"])


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with the server"])
@pytest.mark.parametrize("point", (*RUNNER_CRASH_POINTS, *OF_THE_AGENT))
def test_an_agents_runner_that_is_killed_is_followed_by_another_session(
    scene: Scene, point: str, alone: bool
) -> None:
    said = killed(scene, [("agent", point)], alone)
    first, *rest = said["outcomes"]
    if point == "runner-after-lock":  # nothing had begun: the launch is made once more
        assert (first, rest) in (("done", []), ("not_started", ["done"]))
    elif first == "done":  # its last words were in the log: the work is judged, not done again
        assert point in ("runner-before-exit", "runner-child-exited:2") and (rest, said["cut"]) == ([], 1)
    else:
        assert first in ("lost", "not_started") and rest == ["done"] and said["cut"] == 1
        assert point != "runner-before-exit"


@pytest.mark.parametrize("kind", ["gate", "intake", "candidate", "land", "discard"])
@pytest.mark.parametrize("point", ["runner-after-identity", "runner-before-exit"])
def test_another_runner_that_is_killed_costs_the_story_nothing(scene: Scene, point: str, kind: str) -> None:
    """An intake there is only where the session's own last step failed, a runner for a delete where the copy is large."""
    of = [(kind, point)]
    if kind == "intake":
        of.insert(0, ("agent", "intake-packed"))
    said = healed(scene, victims=of, **({"small": 1} if kind == "discard" else {}))
    assert (said["outcomes"], said["killed"]) == (["done"], [kind])


def test_a_stop_that_was_asked_for_is_carried_out_after_a_crash(scene: Scene) -> None:
    waits = script([{"say": "I begin"}, wait_for()], TURN)
    assert scene.work(crash=STOP_POINT, stop=True, description=waits)[0] == -9
    assert healed(scene, stop=True)["outcomes"] == ["stopped", "done"]


@pytest.mark.parametrize("point", DELETE_POINTS)
def test_a_delete_that_is_killed_is_finished_by_the_next_start(scene: Scene, point: str) -> None:
    waits = script([{"say": "I begin"}, wait_for()], TURN)
    assert scene.delete(crash=point, description=waits)[0] == -9
    status, said = scene.delete(description=waits)
    assert status == 0
    assert said == {"sessions": 0, "lies": [], "strays": [], "refs": ["refs/heads/main"], "folders": []}
