"""The files of a copy in which an agent still works are kept without reading, changing or trusting anything of its `.git`."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline import git
from pipeline.git.refusals import Refused
from pipeline.processes import confine
from tests.git.repositories import Project, Repository, chore, refusal
from tests.git.test_hostile_copies import TRAPS

pytestmark = pytest.mark.needs_bubblewrap


def snapshot(project: Project, copy: Repository, **more: Any) -> dict[str, Any]:
    scratch = project.home / "sessions" / copy.path.name / "snapshot"
    prefix = confine.confined(
        [],
        level="bubblewrap",
        writable=[scratch],
        readable=[copy.path, project.control / "objects"],
        hidden=[project.home],
        network=False,
        cwd=copy.path,
    )
    answer = chore(
        "snapshot",
        project.intake_request(copy) | {"confinement": prefix, "scratch": str(scratch)} | more,
    )
    assert not scratch.exists()
    return answer


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Path -> content and time of each file below the folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_files_are_kept_on_the_base_and_nothing_of_the_copy_is_touched(project: Project) -> None:
    copy = project.copy()
    copy.commit({"mine.txt": "committed by the agent\n"})
    copy.write(
        {"src/a.txt": "changed\n", "new/b.txt": "untracked\n", "noise.log": "ignored\n", "src/b.txt": None}
    )
    before, head = everything(copy.path), copy.git("rev-parse", "HEAD")
    answer = snapshot(project, copy)
    kept = answer["commit"]
    assert git.read_ref(project.control, git.snapshot_ref(copy.path.name)) == kept
    assert git.paths_changed(project.control, project.fetched["tip"], kept) == [
        "mine.txt", "new/b.txt", "src/a.txt", "src/b.txt",
    ]  # fmt: skip
    assert [commit.parents for commit in git.log(project.control, project.fetched["tip"], kept)] == [
        (project.fetched["tip"],)
    ]
    assert (
        everything(copy.path) == before and copy.git("rev-parse", "HEAD") == head and answer["left_out"] == []
    )


def test_a_later_snapshot_takes_the_place_of_an_earlier_one_and_an_unchanged_copy_has_none(
    project: Project,
) -> None:
    copy = project.copy()
    assert snapshot(project, copy) == {"commit": "", "left_out": []}
    copy.write({"a.txt": "one\n"})
    first = snapshot(project, copy)["commit"]
    copy.write({"a.txt": "two\n"})
    second = snapshot(project, copy)["commit"]
    assert git.read_ref(project.control, git.snapshot_ref(copy.path.name)) == second != first
    tip = project.intake(copy)["tip"]
    assert git.tree_of(project.control, tip) == git.tree_of(project.control, second)


@pytest.mark.parametrize("trap", [*TRAPS, "gitdir"])
def test_what_is_planted_in_its_git_folder_is_not_even_read(
    project: Project, tmp_path: Path, trap: str
) -> None:
    marker, copy = tmp_path / "ran", project.copy()
    program = copy.path / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {marker}\ncat\n")
    program.chmod(0o755)
    if trap == "gitdir":
        shutil.rmtree(copy.path / ".git")
        (copy.path / ".git").symlink_to("/dev/zero")
    else:
        included = copy.path / ".git/more"
        included.write_text(f"[core]\n\tfsmonitor = {program}\n")
        hooks = copy.path / ".git/hooks"
        shutil.copy(program, hooks / "post-index-change")
        with (copy.path / ".git/config").open("a") as config:
            config.write(TRAPS[trap].format(run=program, hooks=hooks, included=included))
    copy.write({".gitattributes": "* filter=evil diff=evil merge=evil\n", "src/a.txt": "changed\n"})
    kept = snapshot(project, copy)["commit"]
    assert git.paths_changed(project.control, project.fetched["tip"], kept) == [
        ".gitattributes", "evil.sh", "src/a.txt",
    ]  # fmt: skip
    assert not marker.exists()


def test_embedded_repositories_and_what_cannot_be_read_are_left_out_and_named(project: Project) -> None:
    copy = project.copy()
    nested = Repository.create(copy.path / "vendor/lib")
    nested.commit({"x.txt": "x\n"})
    subprocess.run(["mkfifo", str(copy.path / "pipe")], check=True)
    copy.write({"a.txt": "a\n"})
    answer = snapshot(project, copy)
    assert answer["left_out"] == ["vendor/lib"]
    assert git.paths_changed(project.control, project.fetched["tip"], answer["commit"]) == ["a.txt"]
    assert (copy.path / "vendor/lib/.git").is_dir()


def test_too_much_is_refused_and_leaves_nothing(project: Project) -> None:
    copy = project.copy()
    copy.write({"big": b"x" * 200_000})
    with pytest.raises(Refused) as error:
        snapshot(project, copy, most_bytes=100_000)
    assert refusal(error).kind == "too_large"
    assert git.read_ref(project.control, git.snapshot_ref(copy.path.name)) is None
