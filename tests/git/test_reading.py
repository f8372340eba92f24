"""Questions that pages ask the control repository, and refs that move by compare-and-swap."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from pipeline import git
from tests.git.repositories import Project, Repository, key


@pytest.fixture
def span(project: Project) -> tuple[Path, str, str]:
    """(control repository, base, tip) of a session that changed files in every way."""
    copy = project.copy()
    copy.git("mv", "src/b.txt", "src/moved.txt")
    (copy.path / "link").unlink()
    (copy.path / "link").symlink_to("/etc/passwd")
    (copy.path / "run.sh").chmod(0o644)
    copy.commit(
        {"src/a.txt": "ONE\ntwo\n", "bin.dat": b"\0\1", "gate/run.sh": "exit 0\n", "README": None},
        "Subject\n\nBody.",
    )
    copy.commit({"tab\there.txt": "x\n"}, "second")
    return project.control, project.fetched["tip"], project.intake(copy)["tip"]


def test_changed_files_have_their_counts_and_kinds(span: tuple[Path, str, str]) -> None:
    found = {file.path: file for file in git.changed_files(*span)}
    assert (found["src/a.txt"].status, found["src/a.txt"].added, found["src/a.txt"].deleted) == ("M", 1, 4)
    assert (found["src/moved.txt"].status, found["src/moved.txt"].old_path) == ("R", "src/b.txt")
    assert (found["bin.dat"].status, found["bin.dat"].added) == ("A", None)
    assert found["README"].status == "D"
    assert (found["run.sh"].old_mode, found["run.sh"].new_mode) == ("100755", "100644")
    assert found["tab\there.txt"].added == 1


def test_the_diff_is_text_and_is_cut_where_asked(span: tuple[Path, str, str]) -> None:
    whole = git.diff(*span)
    assert "+ONE" in whole.text
    assert "rename to src/moved.txt" in whole.text
    assert not whole.cut
    short = git.diff(*span, max_bytes=100)
    assert short == (whole.text[:100], True)
    assert git.diff(span[0], span[1], span[1]) == ("", False)


def test_the_log_is_newest_first(span: tuple[Path, str, str]) -> None:
    newest, oldest = git.log(*span)
    assert (newest.subject, oldest.subject, oldest.message) == ("second", "Subject", "Subject\n\nBody.\n")
    assert newest.parents == (oldest.id,)
    assert len(git.log(*span, limit=1)) == 1
    assert git.count_commits(*span) == 2


def test_a_file_is_shown_from_the_tree_and_a_link_as_text(span: tuple[Path, str, str]) -> None:
    control, base, tip = span
    file = git.show_file(control, tip, "src/a.txt")
    assert file is not None
    assert (file.data, file.size, file.cut, file.mode) == (b"ONE\ntwo\n", 8, False, "100644")
    cut = git.show_file(control, tip, "src/a.txt", max_bytes=3)
    assert cut is not None
    assert (cut.data, cut.cut) == (b"ONE", True)
    link = git.show_file(control, tip, "link")
    assert link is not None
    assert (link.mode, link.data) == ("120000", b"/etc/passwd")
    assert git.show_file(control, tip, "link/x") is None
    assert git.show_file(control, tip, "src") is None
    assert git.show_file(control, tip, "*") is None
    assert git.show_file(control, base, "bin.dat") is None


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../b", ".git/config", "a/.GIT/config", "-x", "a\0b", "", "a//b"]
)
def test_paths_that_lead_out_of_the_tree_are_refused(project: Project, path: str) -> None:
    with pytest.raises(git.HostileName):
        git.show_file(project.control, project.fetched["tip"], path)


def test_changes_below_given_paths_are_found(span: tuple[Path, str, str]) -> None:
    control, base, tip = span
    assert git.paths_changed(control, base, tip, ["gate/run.sh", ".huskies"]) == ["gate/run.sh"]
    assert git.paths_changed(control, base, tip, ["src/"]) == ["src/a.txt", "src/b.txt", "src/moved.txt"]
    assert git.paths_changed(control, base, tip, ["sr", "s*"]) == []
    assert git.paths_changed(control, base, tip, []) == []
    assert git.blob_at(control, base, "gate/run.sh") is None
    assert git.blob_at(control, tip, "gate/run.sh") is not None
    assert git.blob_at(control, tip, "gate") is None


def test_ancestry_and_names_are_resolved(span: tuple[Path, str, str]) -> None:
    control, base, tip = span
    assert git.is_ancestor(control, base, tip)
    assert not git.is_ancestor(control, tip, base)
    assert git.merge_base(control, base, tip) == base
    assert git.resolve(control, "refs/heads/main") == base
    assert git.resolve(control, "refs/heads/none") is None
    assert git.resolve(control, "0" * 40) is None
    assert git.read_ref(control, "refs/heads/none") is None
    assert git.object_format(control) == "sha1"
    with pytest.raises(git.GitError, match="ended with code"):
        git.tree_of(control, "1" * 40)


def test_only_one_of_eight_who_move_a_ref_wins(project: Project) -> None:
    base = project.fetched["tip"]
    tips = [project.work({"x.txt": f"{number}\n"})["tip"] for number in range(8)]
    barrier = Barrier(8)

    def move(tip: str) -> bool:
        barrier.wait(timeout=30)
        try:
            git.advance_base(project.control, "main", tip, base)
        except (git.RefMoved, git.GitError):
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(move, tips))
    assert won.count(True) == 1
    assert git.read_ref(project.control, "refs/heads/main") == tips[won.index(True)]


def test_a_lost_race_says_where_the_ref_is(project: Project) -> None:
    base, tip = project.fetched["tip"], project.work({"x.txt": "x\n"})["tip"]
    git.set_story_branch(project.control, "huskies/story-1", tip, None)
    with pytest.raises(git.RefMoved) as error:
        git.set_story_branch(project.control, "huskies/story-1", base, None)
    assert error.value.found == tip
    git.delete_ref(project.control, "refs/heads/huskies/story-1", tip)
    with pytest.raises(git.RefMoved):
        git.advance_base(project.control, "main", tip, tip)


def test_a_lock_that_stands_is_trouble_and_not_a_lost_race(project: Project) -> None:
    tip = project.work({"x.txt": "x\n"})["tip"]
    (project.control / "refs/heads/main.lock").touch()
    with pytest.raises(git.GitError, match=r"main\.lock"):
        git.advance_base(project.control, "main", tip, project.fetched["tip"])


def test_the_servers_git_obeys_nothing_around_it(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    (tmp_path / ".gitconfig").write_text(
        f"[core]\n\tfsmonitor = touch {marker}\n[diff]\n\texternal = touch {marker};\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", f"touch {marker}")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "diff.external")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"touch {marker};")
    tip = project.work({"x.txt": "x\n"})["tip"]
    assert "+x" in git.diff(project.control, project.fetched["tip"], tip).text
    assert not marker.exists()


def test_git_itself_is_new_enough() -> None:
    assert git.version() >= git.MINIMUM_VERSION


def test_a_key_that_is_not_random_text_is_refused(alice: Repository) -> None:
    assert git.session_ref(key()).startswith("refs/huskies/sessions/")
    for value in ("../../heads/main", "A" * 20, "", "a" * 19, "a" * 20 + "\n"):
        with pytest.raises(git.HostileName):
            git.session_ref(value)
