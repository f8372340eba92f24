"""Candidates: a squash onto the newest base without a checkout, or a refusal that names the files."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import git
from pipeline.git.refusals import Refused
from tests.git.repositories import AUTHOR, DATE, Project, Repository, chore, chore_program, key, refusal

Files = dict[str, "str | bytes | None"]


def test_a_candidate_is_one_commit_on_the_newest_base(project: Project, alice: Repository) -> None:
    copy = project.copy()
    copy.commit({"a.txt": "1\n"})
    copy.commit({"a.txt": "2\n"})
    tip = project.intake(copy)["tip"]
    theirs = alice.commit({"theirs.txt": "x\n"})
    planned = project.candidate(tip)
    commit = git.log(project.control, theirs, planned["candidate"])[0]
    assert (planned["base"], commit.parents) == (theirs, (theirs,))
    assert (commit.subject, commit.author_name, commit.author_time) == ("Add it (#1)", AUTHOR["name"], DATE)
    assert git.paths_changed(project.control, theirs, planned["candidate"]) == ["a.txt"]
    assert planned["tree"] != planned["same_as"]
    assert git.read_ref(project.control, planned["ref"]) == planned["candidate"]
    assert git.read_ref(project.control, "refs/heads/main") == project.fetched["tip"]


def test_on_an_unmoved_base_the_tree_is_the_one_that_was_gated(project: Project) -> None:
    planned = project.candidate(project.work({"a.txt": "a\n"})["tip"])
    assert planned["tree"] == planned["same_as"]


def test_planning_again_after_a_kill_gives_the_same_commit(project: Project) -> None:
    request = project.candidate_request(project.work({"a.txt": "a\n"})["tip"], key())
    assert chore_program("candidate", request, crash="candidate-made").code == -signal.SIGKILL
    made = git.list_refs(project.control, "refs/huskies/merges/")
    again = chore_program("candidate", request).result
    assert made == {again["ref"]: again["candidate"]}


def test_a_plan_made_anew_replaces_the_overtaken_candidate(project: Project, alice: Repository) -> None:
    tip, merge = project.work({"a.txt": "a\n"})["tip"], key()
    first = project.candidate(tip, merge)
    alice.commit({"theirs.txt": "x\n"})
    second = project.candidate(tip, merge)
    assert git.list_refs(project.control, "refs/huskies/merges/") == {second["ref"]: second["candidate"]}
    assert first["candidate"] != second["candidate"]


def rename_and_edit(repository: Repository) -> None:
    repository.git("mv", "src/a.txt", "src/renamed.txt")


def change_mode(repository: Repository) -> None:
    (repository.path / "new.sh").write_text("x\n")
    (repository.path / "new.sh").chmod(0o755)


def plain_mode(repository: Repository) -> None:
    (repository.path / "new.sh").write_text("x\n")


def writer(files: Files) -> Callable[[Repository], None]:
    return lambda repository: repository.write(files)


def link(repository: Repository) -> None:
    (repository.path / "src/a.txt").unlink()
    (repository.path / "src/a.txt").symlink_to("b.txt")


@pytest.mark.parametrize(
    ("ours", "theirs", "kind", "path"),
    [
        (writer({"src/a.txt": "mine\n"}), writer({"src/a.txt": "theirs\n"}), "content", "src/a.txt"),
        (writer({"new.txt": "mine\n"}), writer({"new.txt": "theirs\n"}), "add/add", "new.txt"),
        (writer({"src/a.txt": None}), writer({"src/a.txt": "theirs\n"}), "modify/delete", "src/a.txt"),
        (rename_and_edit, writer({"src/a.txt": None}), "rename/delete", "src/renamed.txt"),
        (writer({"bin": b"\0mine"}), writer({"bin": b"\0theirs"}), "binary", "bin"),
        (change_mode, plain_mode, "mode", "new.sh"),
        (link, writer({"src/a.txt": "theirs\n"}), None, "src/a.txt"),
        (writer({"place/x": "mine\n"}), writer({"place": "theirs\n"}), "file/directory", "place"),
    ],
    ids=["content", "add-add", "modify-delete", "rename-delete", "binary", "mode", "link", "file-folder"],
)
def test_conflicts_are_listed_by_file_and_kind(
    project: Project,
    alice: Repository,
    ours: Callable[[Repository], None],
    theirs: Callable[[Repository], None],
    kind: str | None,
    path: str,
) -> None:
    copy = project.copy()
    ours(copy)
    tip = project.intake(copy)["tip"]
    theirs(alice)
    alice.commit({})
    with pytest.raises(Refused) as error:
        project.candidate(tip)
    assert refusal(error).kind == "conflict"
    found = refusal(error).data["files"]
    assert any(entry["path"].startswith(path) for entry in found), found
    assert kind is None or kind in {entry["kind"] for entry in found}, found
    assert path in refusal(error).message
    assert git.list_refs(project.control, "refs/huskies/merges/") == {}


def test_work_that_changes_nothing_is_refused(project: Project, alice: Repository) -> None:
    tip = project.work({"a.txt": "a\n"})["tip"]
    alice.commit({"a.txt": "a\n"})
    with pytest.raises(Refused) as error:
        project.candidate(tip)
    assert refusal(error).kind == "empty"


def test_a_rewritten_base_stops_the_queue(project: Project, alice: Repository) -> None:
    planned = project.candidate(project.work({"a.txt": "a\n"})["tip"])
    project.land(planned)
    git.advance_base(project.control, "main", planned["candidate"], planned["base"])
    alice.git("reset", "-q", "--hard", "HEAD~2")
    tip = project.work({"b.txt": "b\n"})["tip"]
    with pytest.raises(Refused) as error:
        project.candidate(tip)
    assert refusal(error).kind == "rewritten"
    assert refusal(error).data["tip"] == alice.head()
    assert not project.probe(planned["candidate"])["reachable"]


def test_a_missing_base_is_refused(project: Project, alice: Repository) -> None:
    tip = project.work({"a.txt": "a\n"})["tip"]
    alice.git("branch", "-q", "-m", "main", "master")
    with pytest.raises(Refused) as error:
        project.candidate(tip)
    assert refusal(error).kind == "missing_base"


def test_a_killed_merge_is_trouble_and_not_a_conflict(project: Project, tmp_path: Path) -> None:
    wrapper = tmp_path / "bin"
    wrapper.mkdir()
    (wrapper / "git").write_text(
        '#!/bin/sh\nfor word in "$@"; do [ "$word" = merge-tree ] && exit 1; done\n'
        f'exec {shutil.which("git")} "$@"\n'
    )
    (wrapper / "git").chmod(0o755)
    request = project.candidate_request(project.work({"a.txt": "a\n"})["tip"], key())
    done = chore_program("candidate", request, PATH=f"{wrapper}:{os.environ['PATH']}")
    assert done.code == 75


def test_the_message_and_the_author_cannot_break_out(project: Project) -> None:
    request = project.candidate_request(project.work({"a.txt": "a\n"})["tip"], key())
    hostile = {"name": "x> 0 +0000\ncommitter evil <e", "email": "-"}
    planned = chore("candidate", {**request, "author": hostile, "message": "-F /etc/passwd\n\nparent 0\n"})
    commit = git.log(project.control, planned["base"], planned["candidate"])[0]
    assert commit.committer_name == "huskies"
    assert commit.subject == "-F /etc/passwd"
    with pytest.raises(git.HostileName):
        chore("candidate", {**request, "message": "a\0b"})
