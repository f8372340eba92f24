"""The merge queue: done means that the change is on the project's own branch, and nothing else."""

from pathlib import Path

import pytest
from django.db import transaction

from pipeline import conf, merging, moves
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.exceptions import TransitionRefused
from pipeline.git.control import read_ref
from pipeline.models import Event, GateRun, Merge, Process, Story
from pipeline.services import landing, merges, stories
from tests.factories import ALICE, commit_files, git
from tests.pipeline.worlds import FILES, World


def test_a_commits_message_has_subject_criteria_and_trailers() -> None:
    text = merging.commit_message(
        title="Add a\nbutton",
        number=7,
        project="web",
        criteria=["It is red", "It\r\nworks"],
        trailers=[("Agent", "coder-1")],
    )
    assert text == "Add a button (#7)\n\n- It is red\n- It works\n\nStory: web/7\nAgent: coder-1\n"


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("moved", "again"),
        ("overtaken", "again"),
        ("dirty", "wait"),
        ("busy", "wait"),
        ("locked", "wait"),
        ("rejected", "wait"),
        ("new", "wait"),
    ],
)
def test_a_refused_push_waits_or_is_merged_anew_and_never_fails_the_story(kind: str, step: str) -> None:
    said = merging.after_land({"refused": {"kind": kind, "message": "m", "files": ["a"]}})
    assert (said.step, said.reason) == (step, "m")


def test_a_push_without_an_answer_is_looked_for() -> None:
    assert merging.after_land({"failed": "killed"}).step == "probe"
    assert merging.after_probe({"result": {"reachable": True, "tip": "b"}}, expected="a").step == "landed"
    assert merging.after_probe({"result": {"reachable": False, "tip": "a"}}, expected="a").step == "land"
    assert merging.after_probe({"result": {"reachable": False, "tip": "c"}}, expected="a").step == "again"
    assert merging.after_probe({"failed": "killed"}, expected="a").step == "probe"


def test_a_story_lands_in_the_checked_out_repository_as_one_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "trailers", [lambda story: [("Agent", "coder-1")]])
    repo = world.repository()
    project = world.add(repo)
    base = project.tip
    story = world.queued(project, {"feature.txt": "new\n"}, criteria=["It is there"])
    world.until_stage(story, "done")
    project.refresh_from_db()
    head = git("rev-parse", "HEAD", cwd=repo)
    assert story.landed == head == project.tip == read_ref(conf.control_path(project.key), "refs/heads/main")
    assert git("rev-parse", "HEAD^", cwd=repo) == base
    assert (repo / "feature.txt").read_text() == "new\n" and git("status", "--porcelain", cwd=repo) == ""
    expected = "Add a button (#1)\n\n- It is there\n\nStory: shop/1\nAgent: coder-1"
    assert git("log", "-1", "--format=%B", cwd=repo) == expected
    assert git("log", "-1", "--format=%an", cwd=repo) == "huskies"
    merge = story.merges.get()
    assert (merge.state, merge.candidate, merge.expected) == ("landed", head, base)
    assert GateRun.objects.get(story=story).purpose == "merge"
    assert Event.objects.filter(story=story, text__contains="landed").exists()


def test_a_story_is_pushed_to_a_remote(world: World) -> None:
    repo = world.repository()
    git("clone", "-q", "--bare", str(repo), str(world.folder / "remote.git"), cwd=world.folder)
    project = world.add(f"file://{world.folder}/remote.git")
    story = world.until_stage(world.queued(project, {"a": "a\n"}), "done")
    assert git("rev-parse", "main", cwd=world.folder / "remote.git") == story.landed


def test_the_lowest_number_lands_first_and_only_one_at_a_time(world: World) -> None:
    project = world.add(world.repository())
    held = world.queued(project, {"held": "x\n"})
    Story.objects.filter(pk=held.pk).update(held_for="held by alice")
    frozen = world.queued(project, {"frozen": "x\n"})
    Story.objects.filter(pk=frozen.pk).update(frozen=True)
    rows = [world.queued(project, {f"{n}.txt": "x\n"}) for n in range(3)]
    for story in rows:
        world.until_stage(story, "done")
    order = list(
        Merge.objects.filter(state="landed").order_by("ended_at").values_list("story__number", flat=True)
    )
    assert order == [3, 4, 5]
    assert not held.merges.exists() and not frozen.merges.exists()


def test_a_conflict_is_merge_failure_with_the_files_and_can_be_mended(world: World) -> None:
    repo = world.repository()
    project = world.add(repo)
    story = world.queued(project, {"README.md": "theirs\n"})
    commit_files(repo, {"README.md": "ours\n"}, "meanwhile")
    world.until_stage(story, "merge_failure")
    merge = story.merges.get()
    assert (merge.state, merge.files) == ("failed", ["README.md"]) and "README.md" in story.reason
    git("revert", "--no-edit", "HEAD", cwd=repo)
    stories.perform(story, "retry_merge", actor=ALICE)
    world.until_stage(story, "done")
    assert (repo / "README.md").read_text() == "theirs\n"


def test_work_that_changes_nothing_has_nothing_to_land(world: World) -> None:
    repo = world.repository()
    project = world.add(repo)
    story = world.queued(project, {"a": "a\n"})
    commit_files(repo, {"a": "a\n"}, "somebody else did it")
    world.until_stage(story, "merge_failure")
    assert story.reason.startswith("Nothing to land.")


def test_what_passed_alone_and_fails_merged_does_not_land(world: World) -> None:
    files = {**FILES, "check.sh": "test ! -e one || test ! -e two\n"}
    repo = world.repository(files)
    project = world.add(repo)
    story = world.queued(project, {"one": "1\n"})
    before = commit_files(repo, {"two": "2\n"}, "meanwhile")
    world.until_stage(story, "merge_failure")
    assert "The gate did not pass on the merged work" in story.reason
    assert git("rev-parse", "HEAD", cwd=repo) == before


def test_a_branch_that_moves_after_the_gate_is_merged_and_gated_again(world: World) -> None:
    repo = world.repository()
    project = world.add(repo)
    story = world.queued(project, {"a": "a\n"})
    world.until_merge(story, "gating")
    moved = commit_files(repo, {"b": "b\n"}, "meanwhile")
    world.until_stage(story, "done")
    assert git("rev-parse", "HEAD^", cwd=repo) == moved
    assert list(story.merges.order_by("pk").values_list("state", flat=True)) == ["replaced", "landed"]
    runs = GateRun.objects.filter(story=story, purpose="merge")
    assert runs.count() == 2 and len({run.tree for run in runs}) == 2


def test_a_changed_file_in_the_way_is_waited_for_and_never_overwritten(world: World) -> None:
    repo = world.repository()
    project = world.add(repo)
    story = world.queued(project, {"README.md": "new\n"})
    (repo / "README.md").write_text("a person is writing here\n")
    merge = world.until_merge(story, "waiting")
    story.refresh_from_db()
    assert story.stage == "merge" and "README.md" in story.waiting_for and merge.next_try is not None
    assert (repo / "README.md").read_text() == "a person is writing here\n"
    (repo / "README.md").write_text("hello\n")
    merges.retry_now(project, actor=ALICE)
    world.until_stage(story, "done")
    assert story.waiting_for == "" and GateRun.objects.filter(story=story).count() == 1


@pytest.mark.parametrize("point", ["land-before-swap", "land-after-swap"])
def test_a_push_that_dies_is_looked_for_and_lands_once(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    git("clone", "-q", "--bare", str(world.repository()), str(world.folder / "bare.git"), cwd=world.folder)
    project = world.add(world.folder / "bare.git")
    base = project.tip
    story = world.queued(project, {"a": "a\n"})
    monkeypatch.setenv("HUSKIES_CRASH", point)
    world.until_merge(story, "probing")
    monkeypatch.delenv("HUSKIES_CRASH")
    world.until_stage(story, "done")
    assert git("rev-list", "--count", f"{base}..main", cwd=world.folder / "bare.git") == "1"
    assert git("rev-parse", "main", cwd=world.folder / "bare.git") == story.landed
    assert story.merges.count() == 1 and GateRun.objects.filter(story=story).count() == 1


@pytest.mark.parametrize("point", ["merge-landed-unrecorded", "outcome-recorded", "merge-gate-green"])
def test_an_outcome_that_is_cut_short_is_recorded_by_the_next_turn(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    passed: list[str] = []

    def die_once(name: str) -> None:
        if name == point and not passed:
            passed.append(name)
            raise RuntimeError(f"cut short at {name}")

    monkeypatch.setattr(landing, "crashpoint", die_once)
    repo = world.repository()
    story = world.queued(world.add(repo), {"a": "a\n"})
    world.until_stage(story, "done")
    assert passed == [point]
    assert git("rev-parse", "HEAD", cwd=repo) == story.landed
    assert git("rev-list", "--count", "HEAD", cwd=repo) == "2" and story.merges.count() == 1


def test_a_damaged_repository_holds_up_no_other_project(world: World) -> None:
    broken, whole = world.add(world.repository(name="broken")), world.add(world.repository(name="whole"))
    stuck, story = world.queued(broken, {"a": "a\n"}), world.queued(whole, {"a": "a\n"})
    conf.control_path(broken.key).rename(world.folder / "gone")
    world.until_stage(story, "done")
    stuck.refresh_from_db()
    assert stuck.stage == "merge" and stuck.waiting_for


def test_a_candidate_that_dies_is_made_again_as_the_same_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = world.add(world.repository())
    story = world.queued(project, {"a": "a\n"})
    monkeypatch.setenv("HUSKIES_CRASH", "candidate-made")
    merge = world.until_merge(story, "waiting")
    made = read_ref(conf.control_path(project.key), f"refs/huskies/merges/{merge.key}")
    monkeypatch.delenv("HUSKIES_CRASH")
    merges.retry_now(project, actor=ALICE)
    world.until_stage(story, "done")
    assert story.landed == made


def test_what_is_on_the_branch_is_done_although_its_merge_was_written_off(world: World) -> None:
    repo = world.repository()
    project = world.add(repo)
    story = world.queued(project, {"a": "a\n"})
    world.until_stage(story, "done")
    # As a restored database has it: the story in merge failure, the merge failed, the commit on the branch.
    with transaction.atomic():
        moves.move(story, "reopen", actor=ALICE, tip=story.merges.get().tip)
        moves.move(story, "to_merge", actor=ALICE)
        moves.move(story, "merge_failed", actor=ALICE, reason="it was thought lost")
    Merge.objects.update(state="failed")
    world.refresh(project)
    story.refresh_from_db()
    assert story.stage == "done" and story.landed == git("rev-parse", "HEAD", cwd=repo)


def test_a_change_that_judges_the_work_does_not_land_unapproved_even_from_the_queue(world: World) -> None:
    repo = world.repository()
    project = world.add(repo)
    story = world.queued(project, {".huskies/project.yaml": "agents: []\n"})
    other = world.queued(project, {"b": "b\n"})
    world.until_stage(other, "done")
    story.refresh_from_db()
    assert story.stage == "merge" and ".huskies/project.yaml" in story.needs_approval
    stories.perform(story, "approve_files", actor=OPERATOR_ON_HOST)
    world.until_stage(story, "done")


def test_the_file_of_what_landed_is_read_at_once(world: World) -> None:
    project = world.add(world.repository())
    story = world.queued(
        project, {".huskies/project.yaml": FILES[".huskies/project.yaml"] + "max_retries: 9\n"}
    )
    Story.objects.filter(pk=story.pk).update(files_approved=story.tip)
    world.until_stage(story, "done")
    from pipeline.services.projects import active_file

    assert active_file(project).max_retries == 9


def test_without_a_gate_approved_work_lands_and_says_that_nothing_ran(world: World) -> None:
    project = world.add(world.repository({".huskies/project.yaml": "agents: []\n"}))
    story = world.until_stage(world.queued(project, {"a": "a\n"}), "done")
    assert "No gate is configured" in GateRun.objects.get(story=story).reason


def test_a_person_can_take_a_waiting_merge_back_but_not_a_push_under_way(world: World) -> None:
    repo = world.repository()
    project = world.add(repo)
    story = world.queued(project, {"README.md": "new\n"})
    (repo / "README.md").write_text("a person is writing here\n")
    merge = world.until_merge(story, "waiting")
    Merge.objects.filter(pk=merge.pk).update(state="landing")
    story.refresh_from_db()
    with pytest.raises(TransitionRefused, match="being pushed to main at this moment"):
        stories.perform(story, "park", actor=ALICE)
    Merge.objects.filter(pk=merge.pk).update(state="waiting")
    stories.perform(story, "park", actor=ALICE)
    story.refresh_from_db()
    assert story.stage == "backlog" and story.merges.get().state == "replaced"
    assert merges.live_merge(project) is None


def test_a_rewritten_branch_stops_landing_with_the_reason(world: World) -> None:
    repo = world.repository()
    project = world.add(repo)
    story = world.queued(project, {"a": "a\n"})
    git("commit", "-q", "--amend", "-m", "rewritten", cwd=repo)
    world.until_merge(story, "waiting")
    story.refresh_from_db()
    assert story.stage == "merge" and "rewritten" in story.waiting_for


def test_advancing_again_and_again_begins_nothing_twice(world: World) -> None:
    project = world.add(world.repository())
    story = world.queued(project, {"a": "a\n"})
    for _ in range(5):
        merges.advance(project.pk)
    assert Merge.objects.count() == 1 and Process.objects.filter(kind="candidate").count() == 1
    world.until_stage(story, "done")
    assert Path(project.source).joinpath("a").exists()
