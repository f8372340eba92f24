"""Private working copies: whole or not there, alike in content, sharing nothing with their neighbours."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import git
from pipeline.git.control import repack
from pipeline.git.refusals import Refused
from pipeline.processes.copies import copy_steps, move_to_trash
from tests.git.repositories import Project, Repository, chore, key, make


def test_a_copy_is_the_bases_tree_on_the_storys_branch(project: Project, alice: Repository) -> None:
    copy = project.copy(number=42)
    assert copy.git("symbolic-ref", "HEAD") == "refs/heads/huskies/story-42"
    assert copy.head() == copy.tip("main") == alice.head()
    assert copy.status() == ""
    assert (copy.path / "link").readlink() == Path("README")
    assert (copy.path / "run.sh").stat().st_mode & 0o100
    assert copy.git("fsck") == ""
    assert list(copy.path.parent.glob("*.part")) == []


def test_a_copy_borrows_objects_and_has_settings_of_its_own(project: Project) -> None:
    copy = project.copy()
    assert copy.git("count-objects") == "0 objects, 0 kilobytes"
    copy.git("config", "user.name", "agent")
    copy.git("stash", "list")
    assert "agent" not in (project.control / "config").read_text()
    copy.commit({"a.txt": "a\n"})
    assert Repository(project.control).git("for-each-ref", "--format=%(refname)").split() == [
        "refs/heads/main",
        "refs/huskies/upstream/main",
    ]


def test_a_next_session_begins_where_the_last_one_ended(project: Project) -> None:
    copy = project.copy()
    copy.write({"half.txt": "half done\n"})
    saved = project.intake(copy, mode="save")
    following = project.copy(resume_from=saved["tip"])
    assert following.head() == saved["tip"]
    assert (following.path / "half.txt").read_text() == "half done\n"
    assert following.tip("main") == project.fetched["tip"]


def test_a_gates_copy_is_detached(project: Project) -> None:
    place = project.home / "copies" / key()
    tip = project.fetched["tip"]
    make(copy_steps(project.control, place, branch=None, commit=tip, object_format="sha1"))
    assert Repository(place).git("rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    assert Repository(place).status() == ""


def test_making_a_copy_again_after_a_kill_starts_from_nothing(project: Project) -> None:
    place = project.home / "copies" / key()
    tip = project.fetched["tip"]
    steps = copy_steps(project.control, place, branch="huskies/story-1", commit=tip, object_format="sha1")
    make(steps[:1])
    (place.with_name(place.name + ".part") / "leftover").touch()
    make(steps)
    assert Repository(place).status() == ""
    (place / "work.txt").write_text("an agent's\n")
    with pytest.raises(OSError, match="not empty"):
        make(steps)
    assert (place / "work.txt").exists()


def test_sixteen_copies_at_once_all_succeed(project: Project) -> None:
    with ThreadPoolExecutor(16) as pool:
        copies = list(pool.map(lambda number: project.copy(number=number), range(1, 17)))
    assert [copy.status() for copy in copies] == [""] * 16


def test_a_copy_of_a_sha256_project_is_sha256(tmp_path: Path, home: Path) -> None:
    modern = Repository.create(tmp_path / "modern", "--object-format=sha256")
    modern.commit({"a.txt": "a\n"})
    copy = Project(home, modern.path).copy()
    assert len(copy.head()) == 64
    assert copy.status() == ""


def test_filters_that_a_story_names_run_nothing_in_a_copy(project: Project, tmp_path: Path) -> None:
    work = project.work({".gitattributes": "* filter=evil diff=evil merge=evil\n", "x.txt": "x\n"})
    assert project.copy(work["tip"]).status() == ""


def test_a_ref_of_ours_is_made_once_and_git_reads_it(project: Project) -> None:
    ref, commit = f"refs/huskies/sessions/{key()}", project.fetched["tip"]
    git.make_ref(project.control, ref, commit)
    assert git.list_refs(project.control, "refs/huskies/sessions/") == {ref: commit}
    other = project.work({"y.txt": "y"})["tip"]
    with pytest.raises(git.RefMoved) as moved:
        git.make_ref(project.control, ref, other)
    assert moved.value.found == commit
    repack(project.control)  # packs the refs too
    assert not (project.control / ref).exists()
    with pytest.raises(git.RefMoved):
        git.make_ref(project.control, ref, other)
    assert not list(project.control.glob("*.part"))


def test_a_base_is_pinned_before_the_copy_and_let_go_after(project: Project) -> None:
    pin, commit = key(), project.fetched["tip"]
    git.pin_base(project.control, pin, commit)
    git.pin_base(project.control, pin, commit)
    assert git.list_refs(project.control, "refs/huskies/bases/") == {f"refs/huskies/bases/{pin}": commit}
    with pytest.raises(git.RefMoved):
        git.pin_base(project.control, pin, project.work({"y.txt": "y"})["tip"])
    git.unpin_base(project.control, pin)
    git.unpin_base(project.control, pin)
    assert git.list_refs(project.control, "refs/huskies/bases/") == {}


def test_a_copy_leaves_by_one_rename_and_is_deleted_later(project: Project, tmp_path: Path) -> None:
    copy = project.copy()
    (tmp_path / "precious").write_text("x")
    (copy.path / "out").symlink_to(tmp_path)
    locked = copy.path / "cache/deep"
    locked.mkdir(parents=True)
    (locked / "file").touch()
    locked.chmod(0o500)
    locked.parent.chmod(0o500)
    name = copy.path.name
    gone = move_to_trash(project.home, copy.path, name)
    assert gone == project.home / "trash" / name
    assert not copy.path.exists()
    assert move_to_trash(project.home, copy.path, name) is None
    assert chore("discard", {"paths": [str(gone)]}) == {"deleted": [str(gone)]}
    assert chore("discard", {"paths": [str(gone)]}) == {"deleted": [str(gone)]}
    assert not gone.exists()
    assert (tmp_path / "precious").exists()


def test_only_trash_is_deleted(project: Project) -> None:
    with pytest.raises(Refused):
        chore("discard", {"paths": [str(project.control)]})
    assert project.control.exists()


def test_repacking_beside_a_copy_loses_nothing_that_it_borrows(project: Project) -> None:
    tips = [project.work({f"{number}.txt": "x\n"})["tip"] for number in range(3)]
    copy = project.copy(tips[0])
    git.delete_ref(project.control, git.list_refs(project.control, "refs/huskies/sessions/").popitem()[0])
    assert chore("repack", {"control": str(project.control)}) == {"packs": 1}
    assert all(git.resolve(project.control, tip) == tip for tip in tips)
    assert copy.git("fsck", "--connectivity-only", "--no-dangling") == ""
