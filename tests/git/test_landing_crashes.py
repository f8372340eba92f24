"""A landing that is killed leaves a person's checkout finished or as it was, and takes nothing of theirs."""

import pytest

from pipeline.git.refusals import Refused
from tests.git.repositories import Project, Repository, chore_program, refusal

CHANGE: dict[str, str | bytes | None] = {
    "src/a.txt": "ONE\ntwo\nthree\nfour\nfive\n",
    "new/file.txt": "new\n",
    "src/b.txt": None,
}


@pytest.mark.parametrize("point", ["land-checkout-halfway", "land-before-swap", "land-after-swap"])
@pytest.mark.parametrize("after", ["land", "probe"])
def test_a_landing_killed_at_any_point_is_finished_or_undone(
    project: Project, alice: Repository, point: str, after: str
) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    killed = chore_program("land", project.land_request(planned), crash=point)
    assert killed.code == -9
    if after == "land":
        assert project.land(planned)["landed"]
    else:
        assert project.probe(planned["candidate"])["reachable"] == (point == "land-after-swap")
        assert alice.head() == (planned["candidate"] if point == "land-after-swap" else planned["base"])
    assert alice.status() == ""
    assert not (alice.path / ".git/index.lock").exists()
    assert list((alice.path / ".git").glob("huskies*")) == []
    assert project.land(planned)["landed"]


def half_written(project: Project, alice: Repository, planned: dict[str, str]) -> None:
    """What a kill in the middle of writing files leaves: lock, intent, one new, one torn, one missing
    file."""
    killed = chore_program("land", project.land_request(planned), crash="land-checkout-halfway")
    assert killed.code == -9
    alice.write({"src/a.txt": "ONE\ntw", "new/file.txt": None, "src/b.txt": "b\n"})


def test_a_checkout_that_was_cut_in_the_middle_of_a_file_is_finished(
    project: Project, alice: Repository
) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    half_written(project, alice, planned)
    assert project.land(planned)["landed"]
    assert alice.status() == ""
    assert (alice.path / "src/a.txt").read_text() == CHANGE["src/a.txt"]


def test_a_checkout_that_was_cut_is_put_back_when_another_plan_comes(
    project: Project, alice: Repository
) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    half_written(project, alice, planned)
    other = project.candidate(project.work({"other.txt": "x\n"})["tip"])
    assert project.land(other)["landed"]
    assert alice.status() == ""
    assert (alice.path / "src/a.txt").read_text() == "one\ntwo\nthree\nfour\nfive\n"


def test_a_persons_edit_after_a_cut_checkout_is_kept_and_listed(project: Project, alice: Repository) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    half_written(project, alice, planned)
    alice.write({"src/b.txt": "edited after the crash\n"})
    for _ in range(2):
        with pytest.raises(Refused) as error:
            project.land(planned)
        assert refusal(error).data["files"] == ["src/b.txt"]
        assert (alice.path / "src/b.txt").read_text() == "edited after the crash\n"
        assert not (alice.path / ".git/index.lock").exists()
    alice.write({"src/b.txt": "b\n"})
    assert project.land(planned)["landed"]
    assert alice.status() == ""
