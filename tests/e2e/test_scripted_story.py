"""One story, from a start to a commit on the base branch, and the ways in which it stops on its way."""

import pytest

from agents.services import assigning, pool
from pipeline import conf
from pipeline.exceptions import AlreadyWorked, NothingRunning
from pipeline.git.control import read_ref
from pipeline.git.reading import is_ancestor
from pipeline.models import GateRun, StageChange
from pipeline.services import stories
from tests.e2e.shop import Shop, wait_for, write
from tests.factories import ALICE, commit_files, git


def test_a_story_goes_from_a_start_to_one_commit_on_the_base_branch(shop: Shop) -> None:
    project = shop.open()
    red = [{"say": "I begin"}, write("button.txt"), write("broken"), {"commit": "Half a button"}]
    green = [{"run": "git rm -q broken"}, {"commit": "Mend the button"}, write("left-uncommitted.txt")]
    story = shop.start(project, red, green, title="Add a button", criteria=["It is red", "It works"])
    story = shop.until_stage(story, "done")
    shop.settled()
    story = shop.fresh(story)
    project.refresh_from_db()

    first, second = shop.sessions(story)
    assert (first.outcome, second.outcome) == ("done", "done")
    assert (
        second.conversation == first.conversation and second.resumed and second.resume_note.startswith("warm")
    )
    assert "the button is missing" in second.prompt and "It is red" in first.prompt
    assert (second.began_at_commit, first.base) == (first.saved, second.base)
    runs = list(GateRun.objects.filter(story=story).order_by("pk"))
    assert [(run.purpose, run.verdict) for run in runs] == [
        ("coding", "failed"),
        ("coding", "passed"),
        ("merge", "passed"),
    ]
    assert "the button is missing" in runs[0].output and "The same tree has passed before" in runs[2].reason
    assert (story.retries, story.crashes, story.waiting_for, story.held_for) == (1, 0, "", "")
    verbs = [
        verb for verb in StageChange.objects.filter(story=story).order_by("pk").values_list("verb", flat=True)
    ]
    assert [v for v in verbs if v in ("start", "to_merge", "land", "block")] == ["start", "to_merge", "land"]

    head = git("rev-parse", "main", cwd=shop.repo)
    assert story.landed == head and git("rev-parse", "HEAD^", cwd=shop.repo) == first.base
    assert git("log", "-1", "--format=%B", cwd=shop.repo).splitlines() == [
        "Add a button (#1)", "", "- It is red", "- It works", "", "Story: shop/1", "Agent: coder-1",
    ]  # fmt: skip
    assert git("status", "--porcelain", cwd=shop.repo) == ""
    assert not (shop.repo / "broken").exists() and (shop.repo / "left-uncommitted.txt").exists()
    control = conf.control_path(project.key)
    assert is_ancestor(control, story.landed, project.tip)
    assert read_ref(control, "refs/heads/huskies/story-1") == story.tip == second.saved
    assert git("log", "--format=%an %s", f"{first.base}..{second.saved}", cwd=control).splitlines() == [
        "huskies coder-1 Add a button", "huskies coder-1 Mend the button", "huskies coder-1 Half a button",
    ]  # fmt: skip


def test_a_stopped_story_is_held_and_a_start_goes_on_from_its_saved_work(shop: Shop) -> None:
    project = shop.open()
    first_turn = [write("a.txt", "from the first session\n"), {"say": "written"}, wait_for()]
    story = shop.start(project, first_turn, [{"run": "cp a.txt b.txt"}])
    session = shop.until_line(story, "written")
    with pytest.raises(AlreadyWorked, match="already being worked on by coder-1"):
        pool.start_story(story, actor=ALICE)
    pool.stop_story(story, actor=ALICE)
    session = shop.until_ended(session)
    shop.settled()
    story = shop.fresh(story)
    assert (session.outcome, session.reason) == ("stopped", "Stopped by alice.")
    assert (story.stage, story.held_for, story.retries, story.crashes) == ("coding", "stopped by alice", 0, 0)
    assert (
        git("show", f"{session.saved}:a.txt", cwd=conf.control_path(project.key)) == "from the first session"
    )
    assert not GateRun.objects.exists() and assigning.auto_assign() == 0
    with pytest.raises(NothingRunning, match="shop/1"):
        pool.stop_story(story, actor=ALICE)

    pool.start_story(story, actor=ALICE)
    story = shop.until_stage(story, "done")
    again = shop.sessions(story)[-1]
    assert (again.began_at_commit, again.conversation, again.resumed) == (
        session.saved,
        session.conversation,
        True,
    )
    assert (shop.repo / "b.txt").read_text() == "from the first session\n"
    shop.settled()


def test_a_person_rejects_with_notes_and_then_approves(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [write("a.txt")], [write("a.txt", "better\n")], qa="human")
    story = shop.until_stage(story, "qa")
    assert story.waiting_for == "A person to approve or reject it."
    stories.perform(story, "reject", actor=ALICE, why="Make it better.")
    shop.server.until(lambda: len(shop.sessions(story)) == 2, what="the second session")
    story = shop.until_stage(story, "qa")
    second = shop.sessions(story)[-1]
    assert "Make it better." in second.prompt and second.resumed
    assert (story.retries, git("rev-list", "--count", "main", cwd=shop.repo)) == (0, "1")
    stories.perform(story, "approve", actor=ALICE)
    shop.until_stage(story, "done")
    assert (shop.repo / "a.txt").read_text() == "better\n"
    shop.settled()


def test_no_change_is_tried_again_with_that_word_and_then_blocked(shop: Shop) -> None:
    project = shop.open(max_retries=1)
    story = shop.start(project, [{"say": "I did nothing"}])
    story = shop.until_stage(story, "blocked")
    shop.settled()
    first, second = shop.sessions(story)
    assert [first.outcome, second.outcome] == ["no_change", "no_change"]
    assert "no file was changed" in second.prompt and second.resumed
    assert "without any change" in story.reason and "last of 1 retries" in story.reason
    stories.perform(story, "unblock", actor=ALICE)
    story = shop.fresh(story)
    assert (story.stage, story.retries, story.reason) == ("coding", 0, "")


def test_a_conflict_is_merge_failure_with_the_files_and_the_coder_can_mend_it(shop: Shop) -> None:
    project = shop.open()
    mend = [{"run": "git merge -q -s ours --no-edit main"}, write("README.md", "both\n"), {"commit": "Both"}]
    story = shop.start(project, [{"say": "ready"}, wait_for(), write("README.md", "ours\n")], mend)
    session = shop.until_line(story, "ready")
    commit_files(shop.repo, {"README.md": "theirs\n"}, "meanwhile")
    shop.go(session)
    story = shop.until_stage(story, "merge_failure")
    merge = story.merges.get()
    assert merge.files == ["README.md"] and "README.md" in story.reason
    shop.server.idle()
    stories.perform(story, "send_back", actor=ALICE, why="Bring it together with main.")
    story = shop.until_stage(story, "done")
    assert "Bring it together with main." in shop.sessions(story)[-1].prompt
    assert (shop.repo / "README.md").read_text() == "both\n"
    shop.settled()


def test_a_change_of_what_judges_the_work_waits_for_an_admin(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [write("check.sh", "exit 0\n"), write("broken")])
    shop.server.until(lambda: shop.fresh(story).needs_approval, what="a change that waits for approval")
    shop.server.idle()
    story = shop.fresh(story)
    # The gate that judged it is the one of the story's own tree; that is why a person looks at it.
    assert "check.sh" in story.needs_approval and story.stage == "merge" and not story.merges.exists()
    assert git("rev-list", "--count", "main", cwd=shop.repo) == "1"
    stories.perform(story, "approve_files", actor=ALICE)
    shop.until_stage(story, "done")
    assert (shop.repo / "broken").exists()
    shop.settled()


def test_two_stories_of_one_coder_are_worked_one_after_the_other(shop: Shop) -> None:
    project = shop.open()
    first = shop.start(project, [{"say": "ready"}, wait_for(), write("a.txt")])
    second = shop.start(project, [write("b.txt")])
    assert "1 of 1 coders busy; coder-1 has been on #1" in second.waiting_for
    shop.go(shop.until_line(first, "ready"))
    for story in (first, second):
        shop.until_stage(story, "done")
    assert [(shop.repo / name).exists() for name in ("a.txt", "b.txt")] == [True, True]
    ended = shop.sessions(first)[0].ended_at
    assert ended is not None and ended <= shop.sessions(second)[0].created_at
    shop.settled()
