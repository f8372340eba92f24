"""The chore `fetch`: what is registered, and each refusal by its name."""

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.git.names import HostileName
from pipeline.git.refusals import Refused
from pipeline.git.source import kind_of
from tests.git.repositories import Project, Repository, chore, chore_program, key, refusal


def refused(home: Path, source: Path | str, kind: str = "path", **more: Any) -> Refused:
    request = {
        "control": str(home / "control" / f"{key()}.git"),
        "source": str(source),
        "source_kind": kind,
        **more,
    }
    with pytest.raises(Refused) as error:
        chore("fetch", request)
    assert refusal(error).message.endswith(".")
    return refusal(error)


def test_a_checked_out_and_dirty_repository_is_registered_untouched(home: Path, alice: Repository) -> None:
    alice.write(
        {"src/a.txt": "dirty\n", "untracked.txt": "x\n", ".huskies/project.yaml": "gate: make test\n"}
    )
    before = alice.status()
    fetched = Project(home, alice.path).fetched
    assert fetched["tip"] == fetched["base"] == alice.head()
    assert (fetched["layout"], fetched["base_branch"], fetched["object_format"]) == (
        "checked_out",
        "main",
        "sha1",
    )
    assert fetched["project_file"] is None
    assert alice.status() == before


def test_the_control_repository_is_private_and_quiet(project: Project) -> None:
    control = Repository(project.control)
    assert project.control.stat().st_mode & 0o777 == 0o700
    assert control.git("config", "gc.auto") == "0"
    assert control.git("config", "maintenance.auto") == "false"
    assert control.git("config", "core.fsync") == "committed,reference"
    assert control.git("config", "transfer.fsckObjects") == "true"
    assert control.git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert not (project.control / "hooks").exists()


def test_a_bare_repository_and_a_url_are_registered(home: Path, bare: Repository) -> None:
    assert Project(home, bare.path).fetched["layout"] == "bare"
    assert Project(home, f"file://{bare.path}", "url").fetched["layout"] == "remote"


def test_later_fetches_note_the_tip_and_leave_the_base(project: Project, alice: Repository) -> None:
    first = alice.head()
    second = alice.commit({"x.txt": "x\n"})
    fetched = project.fetch(base_branch="main")
    assert (fetched["tip"], fetched["base"], fetched["rewritten"]) == (second, first, False)
    alice.git("reset", "-q", "--hard", "HEAD~2")
    assert project.fetch(base_branch="main")["rewritten"]


def test_the_project_file_is_read_from_the_tip(home: Path, alice: Repository) -> None:
    alice.commit({".huskies/project.yaml": "gate: mäke\n"})
    fetched = Project(home, alice.path).fetched
    assert fetched["project_file"] == "gate: mäke\n"
    assert fetched["project_file_blob"] == alice.git("rev-parse", "HEAD:.huskies/project.yaml")


def test_a_project_file_that_cannot_be_read_is_a_problem_not_a_failure(home: Path, alice: Repository) -> None:
    alice.commit({".huskies/project.yaml": b"\xff\xfe"})
    project = Project(home, alice.path)
    assert "UTF-8" in project.fetched["project_file_problem"]
    alice.commit({".huskies/project.yaml": "#" * 300_000})
    assert "256 KiB" in project.fetch()["project_file_problem"]
    (alice.path / ".huskies/project.yaml").unlink()
    (alice.path / ".huskies/project.yaml").symlink_to("/etc/hostname")
    alice.commit({})
    assert "symbolic link" in project.fetch()["project_file_problem"]


def test_a_shallow_repository_is_taken_over_as_shallow(home: Path, tmp_path: Path, alice: Repository) -> None:
    alice.git("clone", "-q", "--depth=1", f"file://{alice.path}", str(tmp_path / "shallow"))
    project = Project(home, tmp_path / "shallow")
    assert project.fetched["shallow"]
    copy = project.copy()
    assert copy.git("log", "--format=%s") == "second"
    copy.commit({"a.txt": "a"})
    assert project.intake(copy)["changed"]


def test_a_linked_worktree_is_registered(home: Path, alice: Repository, tmp_path: Path) -> None:
    alice.git("worktree", "add", "-q", "-b", "dev", str(tmp_path / "linked"))
    project = Project(home, tmp_path / "linked")
    assert project.base == "dev"
    planned = project.candidate(project.work({"w.txt": "w\n"})["tip"])
    assert project.land(planned)["landed"]
    assert (tmp_path / "linked/w.txt").exists()


def test_branches_of_our_own_kind_that_others_have_are_told(home: Path, alice: Repository) -> None:
    alice.git("branch", "huskies/story-7")
    assert Project(home, alice.path).fetched["taken_branches"] == ["huskies/story-7"]


def test_what_is_no_repository_is_refused(home: Path, tmp_path: Path) -> None:
    assert refused(home, tmp_path / "nothing").kind == "not_found"
    (tmp_path / "plain").mkdir()
    assert refused(home, tmp_path / "plain").kind == "not_a_repository"
    assert refused(home, f"file://{tmp_path}/plain", "url").kind == "not_a_repository"


def test_a_repository_without_a_commit_is_refused(home: Path, tmp_path: Path) -> None:
    Repository.create(tmp_path / "fresh")
    assert refused(home, tmp_path / "fresh").kind == "no_commit"
    Repository.create(tmp_path / "fresh.git", "--bare")
    assert refused(home, tmp_path / "fresh.git").kind == "empty"
    assert refused(home, f"file://{tmp_path}/fresh.git", "url").kind == "empty"


def test_a_missing_base_names_the_branches_that_exist(home: Path, alice: Repository) -> None:
    alice.git("branch", "develop")
    found = refused(home, alice.path, base_branch="trunk")
    assert found.kind == "missing_base"
    assert found.data["branches"] == ["develop", "main"]
    assert "develop, main" in found.message


def test_a_detached_head_needs_a_named_base(home: Path, alice: Repository) -> None:
    alice.git("checkout", "-q", "--detach")
    assert refused(home, alice.path).kind == "detached"


def test_a_head_of_a_branch_that_is_not_there_is_told_from_a_detached_one(
    home: Path, alice: Repository
) -> None:
    alice.git("symbolic-ref", "HEAD", "refs/heads/gone")
    found = refused(home, alice.path)
    assert found.kind == "missing_base" and "names a branch that does not exist" in found.message
    assert Project(home, alice.path, base="main").base == "main"


def test_a_base_that_is_gone_later_is_refused(project: Project, alice: Repository) -> None:
    alice.git("branch", "-q", "-m", "main", "master")
    with pytest.raises(Refused) as error:
        project.fetch(base_branch="main")
    assert refusal(error).kind == "missing_base"


def test_a_folder_inside_a_repository_is_refused_with_its_top(
    home: Path, alice: Repository, bare: Repository
) -> None:
    for inside, top in (
        (alice.path / "src", alice.path),
        (alice.path / ".git", alice.path),
        (bare.path / "refs", bare.path),
    ):
        found = refused(home, inside)
        assert (found.kind, found.data["top"]) == ("subfolder", str(top))


def test_partial_clones_submodules_and_lfs_are_refused(home: Path, tmp_path: Path, alice: Repository) -> None:
    alice.git("config", "uploadpack.allowFilter", "true")
    alice.git(
        "clone",
        "-q",
        "--filter=blob:none",
        "--no-checkout",
        f"file://{alice.path}",
        str(tmp_path / "partial"),
    )
    assert refused(home, tmp_path / "partial").kind == "partial_clone"
    alice.commit({"assets/.gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    found = refused(home, alice.path)
    assert (found.kind, found.data["files"]) == ("lfs", ["assets/.gitattributes"])
    alice.git("rm", "-q", "assets/.gitattributes")
    alice.git("update-index", "--add", "--cacheinfo", f"160000,{alice.head()},vendor/lib")
    alice.git("commit", "-q", "-m", "submodule")
    found = refused(home, alice.path)
    assert (found.kind, found.data["files"]) == ("submodules", ["vendor/lib"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a repository is given to another user")
def test_another_users_repository_is_refused(home: Path, alice: Repository) -> None:
    os.chown(alice.path, 12345, 12345)
    os.chown(alice.path / ".git", 12345, 12345)
    assert refused(home, alice.path).kind == "foreign_owner"


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("ext::sh -c touch% ran", "bad_address"),
        ("file::/etc", "bad_address"),
        ("http://git.example.com/x.git", "bad_address"),
        ("ftp://git.example.com/x.git", "bad_address"),
        ("ssh://-oProxyCommand=touch/x", "bad_address"),
        ("just words", "bad_address"),
        ("https://user:hunter2@git.example.com/x.git", "secret_in_address"),
        ("https://ghp_token@git.example.com/x.git", "secret_in_address"),
        ("http://127.0.0.1:9/x.git", "unreachable"),
    ],
)
def test_addresses_that_are_not_fetched_from_are_refused(home: Path, address: str, kind: str) -> None:
    found = refused(home, address, "url")
    assert found.kind == kind
    assert "hunter2" not in found.message
    assert "ghp_token" not in found.message


def test_an_address_that_git_would_take_for_an_option_is_refused(home: Path) -> None:
    for address in ("--upload-pack=touch ran", "-x", "a\nb", "a\0b", ""):
        with pytest.raises(HostileName):
            Project(home, address, "url")


def test_a_persons_text_is_a_path_or_a_url(tmp_path: Path) -> None:
    assert kind_of(str(tmp_path)) == "path"
    assert kind_of("/no/such/folder") == "path"
    assert kind_of("git@example.com:team/app.git") == "url"
    assert kind_of("https://example.com/app.git") == "url"
    assert kind_of("ext::sh -c x") == "url"


def test_hooks_and_settings_of_the_source_start_nothing(
    home: Path, alice: Repository, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    hook = alice.path / ".git/hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hook.chmod(0o755)
    alice.git("config", "core.fsmonitor", f"touch {marker}; false")
    alice.git("config", "uploadpack.packObjectsHook", f"touch {marker}; exec")
    Project(home, alice.path)
    assert not marker.exists()


def test_a_lock_left_in_the_control_repository_is_trouble_and_not_a_refusal(
    project: Project, alice: Repository
) -> None:
    alice.commit({"more.txt": "x\n"})
    (project.control / "refs/huskies/upstream/main.lock").touch()
    done = chore_program("fetch", project.towards())
    assert done.code == 75
    assert "main.lock" in done.answer["failed"]


def test_two_registrations_at_once_agree(home: Path, alice: Repository) -> None:
    project = Project(home, alice.path)
    part = project.control.with_name(project.control.name + ".part")
    part.mkdir()
    again = Project(home, alice.path)
    assert again.fetched["base"] == project.fetched["base"]
