"""A session's copy is hostile. Nothing of it may run outside the sandbox, nothing foreign may come in,
nothing may hang.

Each trap is set in a real copy, then taken in at both levels; the marker file must not appear, the secret
must not come."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import git
from pipeline.git.command import GitError
from pipeline.git.refusals import Refused
from tests.git.repositories import Project, Repository, refusal

LEVELS = pytest.mark.parametrize(
    "confined", [False, pytest.param(True, marks=pytest.mark.needs_bubblewrap)], ids=["bare", "bubblewrap"]
)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that planted code would make, outside everything a sandbox may write to."""
    folder = tmp_path / "marked"
    folder.mkdir()
    return folder / "ran"


@pytest.fixture
def secret(home: Path, tmp_path: Path) -> tuple[Path, str]:
    """Another project's control repository with a secret in it, and the secret's blob."""
    other = Repository.create(tmp_path / "other")
    other.commit({"secret.txt": "the other team's secret\n"})
    project = Project(home, other.path)
    return project.control, other.git("rev-parse", "HEAD:secret.txt")


def steal(copy: Repository, blob: str, reach: Callable[[], object]) -> None:
    """Commit a tree that names another repository's blob; `reach` makes the blob reachable for git."""
    reach()
    copy.git("update-index", "--add", "--cacheinfo", f"100644,{blob},loot.txt")
    copy.git("commit", "-q", "-m", "loot")


TRAPS: dict[str, str] = {
    "fsmonitor": "[core]\n\tfsmonitor = {run}\n",
    "hooks": "[core]\n\thooksPath = {hooks}\n",
    "worktree": "[core]\n\tworktree = /\n",
    "filter": '[filter "evil"]\n\tclean = {run}\n\tsmudge = {run}\n\tprocess = {run}\n',
    "diff": '[diff "evil"]\n\tcommand = {run}\n\ttextconv = {run}\n[diff]\n\texternal = {run}\n',
    "merge": '[merge "evil"]\n\tdriver = {run}\n',
    "gpg": "[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = {run}\n",
    "alternateRefs": "[core]\n\talternateRefsCommand = {run}\n",
    "packObjectsHook": "[uploadpack]\n\tpackObjectsHook = {run}\n",
    "pager": "[core]\n\tpager = {run}\n\teditor = {run}\n\taskPass = {run}\n\tsshCommand = {run}\n",
    "include": "[include]\n\tpath = {included}\n",
}


@LEVELS
@pytest.mark.parametrize("trap", TRAPS)
def test_planted_settings_run_nothing(
    project: Project, tmp_path: Path, marker: Path, trap: str, confined: bool
) -> None:
    copy = project.copy()
    program = copy.path / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {marker}\ncat\n")
    program.chmod(0o755)
    hooks = copy.path / ".git/hooks"
    for name in (
        "pre-commit",
        "post-commit",
        "post-index-change",
        "reference-transaction",
        "prepare-commit-msg",
    ):
        shutil.copy(program, hooks / name)
    included = copy.path / ".git/more"
    included.write_text(f"[core]\n\tfsmonitor = {program}\n")
    setting = TRAPS[trap].format(run=program, hooks=hooks, included=included)
    with (copy.path / ".git/config").open("a") as config:
        config.write(setting)
    copy.write({".gitattributes": "* filter=evil diff=evil merge=evil\n", "src/a.txt": "changed\n"})
    copy.write({".git/info/attributes": "* filter=evil\n"})
    answer = project.intake(copy, confined=confined)
    assert not marker.exists()
    assert "evil.sh" in answer["files"]
    assert any("config" in note for note in answer["notes"])
    planned = project.candidate(answer["tip"])
    assert project.copy(planned["candidate"]).status() == ""
    git.diff(project.control, planned["base"], planned["candidate"])
    project.land(planned)
    assert not marker.exists()


@LEVELS
def test_an_alternates_line_to_another_project_steals_nothing(
    project: Project, secret: tuple[Path, str], confined: bool
) -> None:
    control, blob = secret
    copy = project.copy()
    alternates = copy.path / ".git/objects/info/alternates"
    steal(copy, blob, lambda: alternates.write_text(alternates.read_text() + f"{control}/objects\n"))
    with pytest.raises(Refused) as error:
        project.intake(copy, confined=confined)
    assert refusal(error).kind == "hostile_store"
    assert not holds(project, blob)


@LEVELS
@pytest.mark.parametrize("what", ["objects", "pack", "fan-out"])
def test_linked_objects_of_another_project_steal_nothing(
    project: Project, secret: tuple[Path, str], what: str, confined: bool
) -> None:
    control, blob = secret
    copy = project.copy()
    objects = copy.path / ".git/objects"

    def reach() -> None:
        if what == "objects":
            shutil.rmtree(objects)
            objects.symlink_to(control / "objects")
        elif what == "pack":
            (objects / "pack").rmdir()
            (objects / "pack").symlink_to(control / "objects/pack")
        else:
            loose = Repository(control).path / "objects" / blob[:2]
            packs = [pack.read_bytes() for pack in (control / "objects/pack").glob("*.pack")]
            for file in (control / "objects/pack").iterdir():
                file.unlink()
            for data in packs:
                Repository(control).git("unpack-objects", "-q", stdin=data)
            shutil.rmtree(objects / blob[:2], ignore_errors=True)
            (objects / blob[:2]).symlink_to(loose)

    if what == "objects":
        reach()
    else:
        steal(copy, blob, reach)
    with pytest.raises(Refused) as error:
        project.intake(copy, confined=confined)
    assert refusal(error).kind == "hostile_store"
    assert not holds(project, blob)


def holds(project: Project, blob: str) -> bool:
    done = subprocess.run(
        ["git", f"--git-dir={project.control}", "cat-file", "-e", blob], capture_output=True
    )
    return done.returncode == 0


def test_a_tree_that_names_a_missing_object_is_refused(project: Project) -> None:
    copy = project.copy()
    tree = copy.git("mktree", "--missing", stdin=f"100644 blob {'5' * 40}\tloot.txt\n".encode())
    commit = copy.git("commit-tree", tree, "-p", "HEAD", "-m", "loot")
    copy.git("update-ref", "HEAD", commit)
    with pytest.raises(Refused) as error:
        project.intake(copy)
    assert refusal(error).kind == "hostile_store"


@LEVELS
@pytest.mark.parametrize("place", ["objects/ab/x", "HEAD", "index", "packed-refs", "objects/pack/pack-x.idx"])
def test_a_fifo_where_git_reads_hangs_nobody(project: Project, place: str, confined: bool) -> None:
    copy = project.copy()
    fifo = copy.path / ".git" / place
    fifo.parent.mkdir(exist_ok=True)
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    with pytest.raises(Refused) as error:
        project.intake(copy, confined=confined, limit=5)
    assert refusal(error).kind == "hostile_store"
    assert "FIFO" in refusal(error).message


@LEVELS
def test_a_fifo_in_the_tree_ends_by_the_time_limit(project: Project, confined: bool) -> None:
    copy = project.copy()
    (copy.path / ".gitignore").unlink()
    os.mkfifo(copy.path / ".gitignore")
    try:
        answer = project.intake(copy, confined=confined, limit=1)
    except Refused as refused:
        assert refused.kind == "hostile_store"
        assert "did not answer" in refused.message
    else:
        assert answer["files"] == [".gitignore"]


def test_a_socket_in_the_store_is_refused(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = project.copy()
    monkeypatch.chdir(copy.path / ".git/objects")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("sock")
        with pytest.raises(Refused):
            project.intake(copy)


def test_nothing_is_written_through_links_in_the_copy(project: Project, tmp_path: Path) -> None:
    """The agent points .git's parts at somebody else's files: they must stay as they are."""
    victim = tmp_path / "victim"
    (victim / "info").mkdir(parents=True)
    for name in ("config", "index", "info/attributes", "shallow", "HEAD"):
        (victim / name).write_text("precious")
    copy = project.copy()
    copy.write({"a.txt": "a\n"})
    store = copy.path / ".git"
    for name in ("config", "index", "shallow", "HEAD", "huskies-index", "config.lock"):
        (store / name).unlink(missing_ok=True)
        (store / name).symlink_to(victim / name)
    shutil.rmtree(store / "info")
    (store / "info").symlink_to(victim / "info")
    answer = project.intake(copy)
    assert answer["files"] == ["a.txt"]
    assert {path.name: path.read_text() for path in victim.rglob("*") if path.is_file()} == dict.fromkeys(
        ["config", "index", "attributes", "shallow", "HEAD"], "precious"
    )


@pytest.mark.parametrize("form", ["link", "file"])
def test_a_git_folder_that_leads_elsewhere_is_not_entered(
    project: Project, alice: Repository, form: str
) -> None:
    copy = project.copy()
    copy.write({"a.txt": "a\n"})
    shutil.rmtree(copy.path / ".git")
    if form == "link":
        (copy.path / ".git").symlink_to(alice.path / ".git")
    else:
        (copy.path / ".git").write_text(f"gitdir: {alice.path}/.git\n")
    before = (alice.path / ".git/config").read_text()
    assert project.intake(copy)["files"] == ["a.txt"]
    assert (alice.path / ".git/config").read_text() == before
    assert alice.status() == ""


def test_a_shared_folder_file_grafts_and_replacements_are_ignored(
    project: Project, alice: Repository
) -> None:
    copy = project.copy()
    first = copy.git("rev-list", "--max-parents=0", "HEAD")
    tip = copy.commit({"a.txt": "a\n"})
    fake = copy.git("commit-tree", "HEAD^{tree}", "-m", "fake")
    copy.git("replace", tip, fake)
    copy.write({".git/info/grafts": f"{tip} {first}\n", ".git/commondir": str(alice.path / ".git")})
    answer = project.intake(copy)
    assert (answer["tip"], answer["commits"]) == (tip, 1)
    assert git.diff(project.control, project.fetched["tip"], tip).text.count("diff --git") == 1


def test_an_object_that_carries_a_git_folder_is_refused(project: Project) -> None:
    copy = project.copy()
    blob = copy.git("hash-object", "-w", "--stdin", stdin=b"[core]\n")
    tree = copy.git("mktree", stdin=f"100644 blob {blob}\tconfig\n".encode())
    top = copy.git(
        "hash-object",
        "-t",
        "tree",
        "-w",
        "--literally",
        "--stdin",
        stdin=b"40000 .git\0" + bytes.fromhex(tree),
    )
    commit = copy.git("commit-tree", top, "-p", "HEAD", "-m", "trap")
    copy.git("update-ref", "refs/heads/huskies/story-1", commit)
    with pytest.raises((Refused, GitError)) as error:
        project.intake(copy, strict_objects=True)
    assert isinstance(error.value, Refused)
    assert git.resolve(project.control, commit) is None


def test_a_story_that_would_add_a_submodule_or_lfs_does_not_become_a_candidate(project: Project) -> None:
    copy = project.copy()
    (copy.path / "vendor/lib").mkdir(parents=True)
    copy.git("update-index", "--add", "--cacheinfo", f"160000,{copy.head()},vendor/lib")
    copy.git("commit", "-q", "-m", "link")
    tip = project.intake(copy)["tip"]
    with pytest.raises(Refused) as error:
        project.candidate(tip)
    assert refusal(error).kind == "submodules"
    with pytest.raises(Refused) as error:
        project.candidate(project.work({".gitattributes": "*.bin filter=lfs\n"})["tip"])
    assert refusal(error).kind == "lfs"
