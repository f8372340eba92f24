"""Landing: the project's own branch moves from the gated tip to the candidate, or not at all."""

import os
import shutil
from pathlib import Path

import pytest

from pipeline.git.refusals import Refused
from tests.git.repositories import Project, Repository, key, refusal

CHANGE: dict[str, str | bytes | None] = {
    "src/a.txt": "ONE\ntwo\nthree\nfour\nfive\n",
    "new/file.txt": "new\n",
    "src/b.txt": None,
}


def test_a_checked_out_branch_is_fast_forwarded_with_its_files(project: Project, alice: Repository) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    answer = project.land(planned)
    assert answer["commit"] == alice.head() == planned["candidate"]
    assert alice.status() == ""
    assert (alice.path / "new/file.txt").read_text() == "new\n"
    assert not (alice.path / "src/b.txt").exists()
    assert alice.git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert list((alice.path / ".git").glob("huskies*")) == []
    assert project.probe(planned["candidate"]) == {"reachable": True, "tip": planned["candidate"]}
    assert project.land(planned)["landed"]


def test_unrelated_work_of_a_person_stays_as_it_was(project: Project, alice: Repository) -> None:
    alice.write({"README": "changed, not committed\n", "notes.txt": "mine\n", "src/other.txt": "staged\n"})
    alice.git("add", "src/other.txt")
    before = alice.status()
    project.land(project.candidate(project.work(CHANGE)["tip"]))
    assert alice.status() == before
    assert (alice.path / "README").read_text() == "changed, not committed\n"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("src/a.txt", "mine\n"),
        ("new/file.txt", "mine, untracked\n"),
        ("src/b.txt", "mine\n"),
        ("new", "a file\n"),
    ],
)
def test_a_file_in_the_way_makes_landing_wait_with_the_list(
    project: Project, alice: Repository, file: str, text: str
) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    before = alice.head()
    alice.write({file: text})
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).kind == "dirty"
    assert any(path.startswith(file) for path in refusal(error).data["files"])
    assert (alice.path / file).read_text() == text
    assert alice.head() == before
    assert not (alice.path / ".git/index.lock").exists()
    assert list((alice.path / ".git").glob("huskies*")) == []
    (alice.path / file).unlink()
    alice.git("checkout", "-q", "--", ".")
    assert project.land(planned)["landed"]


def test_an_ignored_file_in_the_way_is_not_overwritten(project: Project, alice: Repository) -> None:
    work = project.work({"keep.log": "from the story\n", ".gitignore": "\n"})
    planned = project.candidate(work["tip"])
    alice.write({"keep.log": "precious\n"})
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).data["files"] == ["keep.log"]
    assert (alice.path / "keep.log").read_text() == "precious\n"


def test_a_file_with_the_candidates_own_content_is_not_in_the_way(
    project: Project, alice: Repository
) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    alice.write({"new/file.txt": "new\n", "src/b.txt": None, "src/a.txt": CHANGE["src/a.txt"]})
    project.land(planned)
    assert alice.status() == ""


def test_staged_changes_and_a_deletion_are_in_the_way(project: Project, alice: Repository) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    alice.write({"src/a.txt": "staged\n"})
    alice.git("add", "src/a.txt")
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).data["files"] == ["src/a.txt"]
    alice.git("reset", "-q", "--hard")
    alice.write({"src/a.txt": None})
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).data["files"] == ["src/a.txt"]
    assert not (alice.path / "src/a.txt").exists()


def test_a_folder_of_untracked_files_in_the_place_of_a_file_is_kept(
    project: Project, alice: Repository
) -> None:
    planned = project.candidate(project.work({"place": "a file\n"})["tip"])
    alice.write({"place/mine.txt": "mine\n"})
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).kind == "dirty"
    assert (alice.path / "place/mine.txt").read_text() == "mine\n"


def test_a_linked_folder_is_not_followed(project: Project, alice: Repository, tmp_path: Path) -> None:
    planned = project.candidate(project.work({"out/file.txt": "x\n"})["tip"])
    (tmp_path / "elsewhere").mkdir()
    (alice.path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).kind == "dirty"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_files_become_folders_and_links_become_files(project: Project, alice: Repository) -> None:
    copy = project.copy()
    (copy.path / "link").unlink()
    (copy.path / "README").unlink()
    copy.write({"link": "a file now\n", "README/part.txt": "a folder now\n"})
    (copy.path / "run.sh").chmod(0o644)
    planned = project.candidate(project.intake(copy)["tip"])
    project.land(planned)
    assert alice.status() == ""
    assert (alice.path / "README/part.txt").read_text() == "a folder now\n"
    assert (alice.path / "run.sh").stat().st_mode & 0o111 == 0


def test_line_ends_and_filters_of_the_person_do_not_make_files_look_changed(
    home: Path, alice: Repository
) -> None:
    alice.git("config", "core.autocrlf", "true")
    alice.git("config", "core.fileMode", "false")
    (alice.path / "src/a.txt").unlink()
    alice.git("checkout", "-q", "--", "src/a.txt")
    assert b"\r\n" in (alice.path / "src/a.txt").read_bytes()
    project = Project(home, alice.path)
    project.land(project.candidate(project.work(CHANGE)["tip"]))
    assert (alice.path / "src/a.txt").read_bytes().startswith(b"ONE\r\n")


def test_hooks_of_the_checkout_do_not_run(project: Project, alice: Repository, tmp_path: Path) -> None:
    for name in ("post-merge", "post-checkout", "reference-transaction", "pre-push", "post-index-change"):
        hook = alice.path / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        hook.chmod(0o755)
    project.land(project.candidate(project.work(CHANGE)["tip"]))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("marker", "what"),
    [
        ("MERGE_HEAD", "merge"),
        ("rebase-merge", "rebase"),
        ("CHERRY_PICK_HEAD", "cherry-pick"),
        ("BISECT_LOG", "bisect"),
    ],
)
def test_landing_waits_while_git_is_in_the_middle_of_something(
    project: Project, alice: Repository, marker: str, what: str
) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    (alice.path / ".git" / marker).touch()
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).kind == "busy"
    assert what in refusal(error).message


def test_a_persons_lock_is_never_removed(project: Project, alice: Repository) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    lock = alice.path / ".git/index.lock"
    lock.touch()
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).kind == "locked"
    assert lock.exists()
    lock.unlink()
    lock = alice.path / ".git/refs/heads/main.lock"
    lock.touch()
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).kind == "locked"
    assert lock.exists()
    assert alice.status() == ""
    lock.unlink()
    assert project.land(planned)["landed"]


def test_a_branch_that_is_checked_out_in_another_worktree_is_refused(
    project: Project, alice: Repository, tmp_path: Path
) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    alice.git("checkout", "-q", "-b", "topic")
    alice.git("worktree", "add", "-q", str(tmp_path / "second"), "main")
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).kind == "checked_out_elsewhere"
    assert str(tmp_path / "second") in refusal(error).message


def test_a_branch_that_is_not_checked_out_moves_alone(project: Project, alice: Repository) -> None:
    alice.git("checkout", "-q", "-b", "topic")
    alice.write({"src/a.txt": "work in progress\n"})
    planned = project.candidate(project.work(CHANGE)["tip"])
    project.land(planned)
    assert alice.tip() == planned["candidate"]
    assert (alice.path / "src/a.txt").read_text() == "work in progress\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a repository is given to another user")
def test_another_users_repository_is_refused(project: Project, alice: Repository) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    os.chown(alice.path / ".git", 12345, 12345)
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).kind == "foreign_owner"


def test_a_bare_repository_lands_without_running_its_hooks(
    home: Path, bare: Repository, tmp_path: Path
) -> None:
    for name in ("pre-receive", "update", "post-receive", "reference-transaction"):
        hook = bare.path / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        hook.chmod(0o755)
    project = Project(home, bare.path)
    planned = project.candidate(project.work(CHANGE)["tip"])
    assert project.land(planned) == {
        "landed": True,
        "commit": planned["candidate"],
        "tip": planned["candidate"],
    }
    assert bare.tip() == planned["candidate"]
    assert not (tmp_path / "ran").exists()


def test_a_remote_is_pushed_to_with_a_lease(home: Path, bare: Repository, alice: Repository) -> None:
    project = Project(home, f"file://{bare.path}", "url")
    planned = project.candidate(project.work(CHANGE)["tip"])
    assert project.land(planned)["landed"]
    assert bare.tip() == planned["candidate"]
    again = project.candidate(project.work({"second.txt": "2\n"})["tip"])
    alice.git("pull", "-q", "--ff-only", str(bare.path), "main")
    moved = alice.commit({"theirs.txt": "x\n"})
    alice.git("push", "-q", str(bare.path), "main")
    with pytest.raises(Refused) as error:
        project.land(again)
    assert (refusal(error).kind, refusal(error).data["tip"]) == ("moved", moved)
    assert bare.tip() == moved


def test_a_refused_push_shows_what_the_other_side_said(home: Path, bare: Repository) -> None:
    hook = bare.path / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'protected branch: ask Bob'\nexit 1\n")
    hook.chmod(0o755)
    project = Project(home, f"file://{bare.path}", "url")
    planned = project.candidate(project.work(CHANGE)["tip"])
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert refusal(error).kind == "rejected"
    assert "ask Bob" in refusal(error).data["output"]


@pytest.mark.parametrize("layout", ["checked_out", "bare", "url"])
def test_a_tip_that_moved_is_never_overwritten(
    home: Path, alice: Repository, bare: Repository, layout: str
) -> None:
    source = {"checked_out": str(alice.path), "bare": str(bare.path), "url": f"file://{bare.path}"}[layout]
    project = Project(home, source, "url" if layout == "url" else "path")
    planned = project.candidate(project.work(CHANGE)["tip"])
    theirs = alice.commit({"theirs.txt": "x\n"})
    alice.git("push", "-q", str(bare.path), "main")
    with pytest.raises(Refused) as error:
        project.land(planned)
    assert (refusal(error).kind, refusal(error).data["tip"]) == ("moved", theirs)
    planned = project.candidate(project.work(CHANGE)["tip"])
    assert planned["base"] == theirs
    assert project.land(planned)["landed"]


def test_a_candidate_that_somebody_carried_further_counts_as_landed(
    project: Project, alice: Repository
) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    project.land(planned)
    alice.commit({"more.txt": "x\n"})
    assert project.land(planned)["landed"]
    assert project.probe(planned["candidate"])["reachable"]


def test_a_candidate_that_is_not_the_one_that_waits_is_refused(project: Project, alice: Repository) -> None:
    planned = project.candidate(project.work(CHANGE)["tip"])
    with pytest.raises(Refused) as error:
        project.land({**planned, "candidate": planned["base"]})
    assert refusal(error).kind == "overtaken"


def test_landing_works_on_a_shallow_checkout_and_on_sha256(
    tmp_path: Path, home: Path, alice: Repository
) -> None:
    alice.git("clone", "-q", "--depth=1", f"file://{alice.path}", str(tmp_path / "shallow"))
    shallow = Repository(tmp_path / "shallow")
    project = Project(home, shallow.path)
    assert project.fetched["shallow"]
    planned = project.candidate(project.work(CHANGE)["tip"])
    assert project.land(planned)["landed"]
    assert shallow.status() == ""
    modern = Repository.create(tmp_path / "modern", "--object-format=sha256")
    modern.commit({"a.txt": "a\n", "src/b.txt": "b\n"})
    project = Project(home, modern.path)
    planned = project.candidate(project.work({"a.txt": "A\n", "src/b.txt": None})["tip"])
    assert len(planned["candidate"]) == 64
    modern.write({"a.txt": "A\n", "src/b.txt": None})
    assert project.land(planned)["landed"]
    assert modern.status() == ""


def test_two_candidates_on_one_tip_land_only_once(home: Path, bare: Repository) -> None:
    project = Project(home, bare.path)
    plans = [project.candidate(project.work({f"{n}.txt": "x\n"})["tip"], key()) for n in range(2)]
    project.land(plans[0])
    with pytest.raises(Refused) as error:
        project.land(plans[1])
    assert refusal(error).kind == "moved"
    shutil.rmtree(home)
