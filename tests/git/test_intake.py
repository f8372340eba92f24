"""Intake: a session's work comes into the control repository, whatever state the agent left its copy in."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline import git
from pipeline.git.refusals import Refused
from tests.git.repositories import Project, Repository, chore_program, refusal


def test_committed_work_comes_in_under_the_sessions_ref(project: Project) -> None:
    copy = project.copy()
    tip = copy.commit({"a.txt": "a\n", "src/b.txt": None}, "agent's own")
    answer = project.intake(copy)
    assert answer["tip"] == tip == git.read_ref(project.control, answer["ref"])
    assert answer["ref"] == f"refs/huskies/sessions/{copy.path.name}"
    assert answer["files"] == ["a.txt", "src/b.txt"]
    assert (answer["changed"], answer["committed_by_server"], answer["commits"]) == (True, False, 1)
    assert (answer["notes"], answer["recovered"], answer["head"]) == ([], {}, "huskies/story-1")
    assert answer["tree"] == git.tree_of(project.control, tip)


@pytest.mark.parametrize("mode", ["commit", "save"])
def test_uncommitted_work_becomes_the_servers_commit(project: Project, mode: str) -> None:
    copy = project.copy()
    mine = copy.commit({"a.txt": "a\n"})
    copy.write(
        {"a.txt": "changed\n", "untracked/new.txt": "n\n", "noise.log": "ignored\n", "src/b.txt": None}
    )
    answer = project.intake(copy, mode=mode)
    commit = git.log(project.control, project.fetched["tip"], answer["tip"])[0]
    assert commit.parents == (mine,)
    assert (commit.author_name, commit.committer_name, commit.subject) == (
        "coder-1",
        "huskies",
        "Work of the session",
    )
    assert answer["files"] == ["a.txt", "src/b.txt", "untracked/new.txt"]
    assert answer["committed_by_server"]
    assert copy.tip("huskies/story-1") == mine


def test_no_change_at_all_is_named(project: Project) -> None:
    answer = project.intake(project.copy())
    assert (answer["tip"], answer["changed"], answer["commits"]) == (project.fetched["tip"], False, 0)
    copy = project.copy()
    copy.commit({}, "empty")
    answer = project.intake(copy)
    assert (answer["changed"], answer["commits"], answer["files"]) == (False, 1, [])


def test_taking_in_twice_gives_the_same_answer(project: Project) -> None:
    copy = project.copy()
    copy.write({"a.txt": "a\n"})
    first = project.intake(copy)
    copy.write({"a.txt": "later\n"})
    again = project.intake(copy)
    assert {**again, "notes": [], "head": ""} == {**first, "notes": [], "head": ""}


@pytest.mark.parametrize(
    "point", ["intake-snapshot-done", "intake-packed", "intake-indexed", "intake-ref-made"]
)
def test_a_kill_at_any_point_is_healed_by_doing_it_again(project: Project, point: str) -> None:
    copy = project.copy()
    copy.commit({"a.txt": "a\n"})
    copy.write({"b.txt": "b\n"})
    request = project.intake_request(copy)
    assert chore_program("intake", request, crash=point).code == -signal.SIGKILL
    made = git.read_ref(project.control, f"refs/huskies/sessions/{copy.path.name}")
    assert (made is not None) == (point == "intake-ref-made")
    answer = chore_program("intake", request).result
    assert answer["files"] == ["a.txt", "b.txt"]
    assert made in (None, answer["tip"])
    assert answer["committed_by_server"]
    assert list(project.control.glob("tmp*")) == []
    assert Repository(project.control).git("fsck", "--no-dangling") == ""


def test_a_crash_point_may_name_its_passage(project: Project) -> None:
    copy = project.copy()
    copy.commit({"a.txt": "a\n"})
    done = chore_program("intake", project.intake_request(copy), crash="intake-packed:2")
    assert done.code == 0


@pytest.mark.parametrize("detached", [True, False])
def test_commits_on_another_branch_or_a_detached_head_count(project: Project, detached: bool) -> None:
    copy = project.copy()
    copy.git("checkout", "-q", *(["--detach"] if detached else ["-b", "mine"]))
    tip = copy.commit({"a.txt": "a\n"})
    answer = project.intake(copy)
    assert answer["tip"] == tip
    assert answer["head"] == ("detached" if detached else "mine")
    assert "instead of on huskies/story-1" in answer["notes"][0]


def test_work_on_the_storys_branch_counts_when_head_went_back_to_the_base(project: Project) -> None:
    copy = project.copy()
    tip = copy.commit({"a.txt": "a\n"})
    copy.git("checkout", "-q", "main")
    answer = project.intake(copy)
    assert answer["tip"] == tip
    assert "were taken" in answer["notes"][0]


def test_commits_that_head_does_not_reach_are_kept_apart(project: Project) -> None:
    copy = project.copy()
    left = copy.commit({"left.txt": "l\n"})
    copy.git("checkout", "-q", "-b", "other", "main")
    copy.write({"src/a.txt": "stashed\n"})
    copy.git("stash", "-q")
    copy.write({"src/a.txt": "stashed again\n"})
    copy.git("stash", "-q")
    tip = copy.commit({"a.txt": "a\n"})
    answer = project.intake(copy)
    assert answer["tip"] == tip
    assert left in answer["recovered"].values()
    assert len(answer["recovered"]) == 3
    for ref, commit in answer["recovered"].items():
        assert git.resolve(project.control, ref) == commit
    assert answer["files"] == ["a.txt"]


def test_an_amended_base_is_refused_by_name_and_yet_kept(project: Project) -> None:
    copy = project.copy()
    copy.write({"a.txt": "a\n"})
    copy.git("add", "-A")
    copy.git("commit", "-q", "--amend", "-m", "rewritten")
    rewritten = copy.head()
    for _ in range(2):
        with pytest.raises(Refused) as error:
            project.intake(copy)
        assert refusal(error).kind == "not_descendant"
        assert rewritten in refusal(error).data["recovered"].values()
    assert git.resolve(project.control, rewritten) == rewritten
    assert git.read_ref(project.control, f"refs/huskies/sessions/{copy.path.name}") is None


def test_a_rebase_in_progress_is_taken_as_it_stands(project: Project) -> None:
    copy = project.copy()
    copy.commit({"src/a.txt": "mine\n"})
    copy.git("checkout", "-q", "-b", "side", "main")
    copy.commit({"src/a.txt": "other\n"})
    copy.git("checkout", "-q", "huskies/story-1")
    copy.git("rebase", "side", ok=False)
    assert (copy.path / ".git/rebase-merge").exists()
    answer = project.intake(copy)
    assert "<<<<<<<" in git.diff(project.control, project.fetched["tip"], answer["tip"]).text
    assert len(answer["recovered"]) == 1


def test_moved_branches_and_tags_of_the_copy_change_nothing_outside(project: Project) -> None:
    copy = project.copy()
    tip = copy.commit({"a.txt": "a\n"})
    copy.git("branch", "-f", "main", tip)
    copy.git("tag", "v1", tip)
    project.intake(copy)
    assert git.list_refs(project.control, "refs/heads/") == {"refs/heads/main": project.fetched["tip"]}
    assert git.list_refs(project.control, "refs/tags/") == {}


def test_stale_locks_and_a_broken_index_do_not_stop_it(project: Project) -> None:
    copy = project.copy()
    copy.write({"a.txt": "a\n", ".git/index.lock": "", ".git/HEAD.lock": "", ".git/index": b"garbage"})
    assert project.intake(copy)["files"] == ["a.txt"]


def test_a_head_that_cannot_be_read_costs_no_work(project: Project) -> None:
    copy = project.copy()
    tip = copy.commit({"a.txt": "a\n"})
    copy.write({"b.txt": "b\n", ".git/HEAD": ""})
    answer = project.intake(copy)
    assert answer["files"] == ["a.txt", "b.txt"]
    assert git.is_ancestor(project.control, tip, answer["tip"])


def test_uncommitted_work_on_another_branch_does_not_undo_the_storys_commits(project: Project) -> None:
    copy = project.copy()
    left = copy.commit({"a.txt": "a\n"})
    copy.git("checkout", "-q", "main")
    copy.write({"b.txt": "b\n"})
    answer = project.intake(copy)
    assert answer["files"] == ["b.txt"]
    assert list(answer["recovered"].values()) == [left]


def test_files_hidden_by_index_flags_are_not_lost(project: Project) -> None:
    copy = project.copy()
    copy.git("update-index", "--assume-unchanged", "src/a.txt")
    copy.git("update-index", "--skip-worktree", "src/b.txt", "README")
    copy.write({"src/a.txt": "hidden\n", "src/b.txt": "hidden too\n", "README": None})
    assert project.intake(copy)["files"] == ["src/a.txt", "src/b.txt"]


def test_an_embedded_repository_comes_in_as_plain_files(project: Project) -> None:
    copy = project.copy()
    Repository.create(copy.path / "vendor/lib").commit({"lib.txt": "l\n"})
    Repository.create(copy.path / "started").write({"begun.txt": "b\n"})
    Repository.create(copy.path / "staged").commit({"s.txt": "s\n"})
    copy.git("add", "staged")
    answer = project.intake(copy)
    assert answer["files"] == ["staged/s.txt", "started/begun.txt", "vendor/lib/lib.txt"]
    assert len(answer["notes"]) == 3


def test_a_removed_git_folder_costs_only_its_commits(project: Project) -> None:
    copy = project.copy()
    copy.commit({"a.txt": "a\n"})
    shutil.rmtree(copy.path / ".git")
    answer = project.intake(copy)
    assert answer["files"] == ["a.txt"]
    assert answer["committed_by_server"]
    assert "removed .git" in answer["notes"][0]


def test_a_missing_copy_is_named(project: Project) -> None:
    copy = project.copy()
    copy.path.rename(copy.path.with_name("elsewhere"))
    with pytest.raises(Refused) as error:
        project.intake(copy)
    assert refusal(error).kind == "copy_lost"


def test_too_much_work_is_refused_with_the_largest_files(project: Project) -> None:
    copy = project.copy()
    copy.write({"huge.bin": os.urandom(200_000)})
    with pytest.raises(Refused) as error:
        project.intake(copy, most_bytes=100_000)
    assert refusal(error).kind == "too_large"
    assert "huge.bin" in refusal(error).message
    copy.git("add", "-A")
    copy.git("commit", "-q", "-m", "huge")
    with pytest.raises(Refused) as error:
        project.intake(copy, most_bytes=100_000)
    assert refusal(error).kind == "too_large"
    assert project.intake(copy, most_bytes=1_000_000)["files"] == ["huge.bin"]


def test_file_names_of_any_kind_come_in(project: Project) -> None:
    copy = project.copy()
    names: list[str] = ["-x", "a b", "ä", 'quo"te', "new\nline", "*", ":(top)x"]
    copy.write({name: "x\n" for name in names})
    (copy.path / os.fsdecode(b"\xff\xfe")).write_text("x\n")
    answer = project.intake(copy)
    assert len(answer["files"]) == len(names) + 1


@pytest.mark.needs_bubblewrap
def test_the_same_work_comes_in_through_the_sandbox(project: Project) -> None:
    copy = project.copy()
    copy.commit({"a.txt": "a\n"})
    copy.write({"b.txt": "b\n"})
    answer = project.intake(copy, confined=True)
    assert answer["files"] == ["a.txt", "b.txt"]
    assert answer["notes"] == []


def test_a_full_disk_is_trouble_and_not_a_refusal(project: Project, tmp_path: Path) -> None:
    copy = project.copy()
    copy.write({"big.bin": os.urandom(300_000)})
    request: dict[str, Any] = project.intake_request(copy)
    wrapper = tmp_path / "bin"
    wrapper.mkdir()
    (wrapper / "git").write_text(
        '#!/bin/sh\nfor word; do\n[ "$word" = index-pack ] && { ulimit -f 100; trap "" XFSZ; }\ndone\n'
        f'exec {shutil.which("git")} "$@"\n'
    )
    (wrapper / "git").chmod(0o755)
    done = chore_program("intake", request, PATH=f"{wrapper}:{os.environ['PATH']}")
    assert done.code == 75, done.answer
    assert git.read_ref(project.control, f"refs/huskies/sessions/{copy.path.name}") is None
    assert chore_program("intake", request).result["files"] == ["big.bin"]
