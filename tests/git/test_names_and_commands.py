"""Hostile names never reach git, and git's own process is bounded in time and output."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import git
from pipeline.git import command, names
from pipeline.processes import chores
from tests.git.repositories import chore_program

HOSTILE = [
    "-x", "--upload-pack=touch ran", "-", "", "a\0b", "a\nb", "a\rb", "a..b", "a b", "a~1", "a^", "a:b", "a?",
    "a*", "a[", "a\\b", "a@{0}", "@", "HEAD", "refs/heads/x", ".a", "a.", "a/.b", "a.lock", "a.lock/b",
    "/a", "a/", "a//b", "a/-x", "x" * 300, "a\x7f", "a\u202eb", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_branch_names_are_refused(name: str) -> None:
    with pytest.raises(names.HostileName):
        names.check_branch(name)


@pytest.mark.parametrize(
    "name", ["main", "release/1.0", "feature#1", "ünïcode", "a-b_c", "$(id)", "a;rm", "a'b"]
)
def test_odd_but_legal_branch_names_of_people_are_allowed(name: str) -> None:
    assert names.check_branch(name) == name
    done = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"])
    assert done.returncode == 0


@given(st.text())
def test_whatever_is_allowed_as_a_branch_git_allows_too(name: str) -> None:
    try:
        names.check_branch(name)
    except names.HostileName:
        return
    assert subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True).returncode == 0


@given(st.text(min_size=1))
def test_every_function_refuses_text_that_is_no_commit(text: str) -> None:
    control = Path("/nowhere.git")
    for call in (
        lambda: git.tree_of(control, text),
        lambda: git.diff(control, text, text),
        lambda: git.log(control, text, text),
        lambda: git.is_ancestor(control, text, text),
        lambda: git.show_file(control, text, "x"),
        lambda: git.move_ref(control, "refs/heads/x", text, None),
        lambda: git.pin_base(control, text, "0" * 40),
        lambda: git.read_ref(control, "x" + text),
    ):
        with pytest.raises(names.HostileName):
            call()


def test_story_branches_are_made_from_numbers_only() -> None:
    assert git.story_branch(42) == "huskies/story-42"
    for value in (0, -1):
        with pytest.raises(names.HostileName):
            git.story_branch(value)
    for text in ("huskies/story-1 ", "main", "huskies/story-1/../x", "huskies/story-\uff11"):
        with pytest.raises(names.HostileName):
            names.check_story_branch(text)


def run(code: str, **more: object) -> command.Completed:
    options: dict[str, object] = {"cwd": Path("/"), "timeout": 20.0, **more}
    argv = [sys.executable, "-I", "-S", "-c", f"exec({code!r})"]
    return command.execute(argv, dict(os.environ), **options)  # type: ignore[arg-type]


def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    # Both processes hold the FIFO's writing end; the reader sees its end only when both are dead.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    code = (
        f"import os,time\nkept = open({str(fifo)!r}, 'wb', 0)\nkept.write(b'x')\nos.fork()\ntime.sleep(600)"
    )
    with pytest.raises(command.GitTimeout):
        run(code, timeout=1.0)
    os.set_blocking(reader, True)
    assert os.read(reader, 10) == b"x"
    assert os.read(reader, 10) == b""
    os.close(reader)


def test_a_grandchild_that_holds_the_output_open_does_not_hold_us(tmp_path: Path) -> None:
    # It lives until this test lets go of the FIFO: who waited for it would be ended by the command's time-out.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDWR)
    code = f"import os\nkept = open({str(fifo)!r}, 'rb', 0)\nos.write(1, b'done')\nif not os.fork():\n os.setsid(); kept.read(1)"
    try:
        assert run(code).stdout == b"done"
    finally:
        os.write(held, b"x")
        os.close(held)


def test_output_is_cut_and_errors_keep_their_end() -> None:
    done = run("import os\nwhile True: os.write(1, b'x' * 65536)", cap=100_000)
    assert (len(done.stdout), done.cut) == (100_000, True)
    done = run("import os\nfor n in range(1000): os.write(2, b'y' * 1000)\nos.write(2, b'the end')")
    assert done.errors.endswith("the end")
    assert len(done.errors) <= 8192
    done = run("import sys\nsys.stdout.buffer.write(b'z' * 3_000_000)")
    assert len(done.stdout) == 3_000_000


def test_endless_output_does_not_outlive_the_time_limit() -> None:
    with pytest.raises(command.GitTimeout):
        run("import os\nwhile True: os.write(2, b'x' * 65536)", timeout=0.3)


def test_a_large_input_and_a_large_output_do_not_block_each_other() -> None:
    code = "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())"
    assert len(run(code, stdin=b"q" * 2_000_000).stdout) == 2_000_000


def test_a_failed_command_shows_itself_its_code_and_its_output() -> None:
    with pytest.raises(git.GitError) as error:
        command.checked(["git", "--git-dir=/nowhere.git", "rev-parse"], {}, cwd=Path("/"), timeout=10)
    assert error.value.code == 128
    assert "git --git-dir=/nowhere.git rev-parse" in str(error.value)
    assert "not a git repository" in error.value.output
    with pytest.raises(git.GitError, match="could not be started"):
        command.execute(["no-such-program"], {}, cwd=Path("/"), timeout=1)
    with pytest.raises(git.GitError, match="killed by signal 9"):
        argv = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
        command.checked(argv, dict(os.environ), cwd=Path("/"), timeout=10)
    with pytest.raises(git.HostileName):
        command.execute(["git", "a\nb"], {}, cwd=Path("/"), timeout=1)


def test_no_variable_of_the_server_reaches_its_own_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/x")
    monkeypatch.setenv("DATABASE_URL", "canary")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent.sock")
    own, network = command.control_environment(), command.network_environment()
    assert "canary" not in {*own.values(), *network.values()}
    assert "GIT_DIR" not in own
    assert "GIT_DIR" not in network
    assert "SSH_AUTH_SOCK" not in own
    assert network["SSH_AUTH_SOCK"] == "/agent.sock"
    assert own["GIT_TERMINAL_PROMPT"] == network["GIT_TERMINAL_PROMPT"] == "0"


def test_a_chore_answers_in_a_file_and_says_what_it_cannot_do() -> None:
    done = chore_program("discard", {"paths": ["relative"]})
    assert (done.code, done.errors) == (0, "")
    with pytest.raises(git.Refused, match="absolute path"):
        _ = done.result
    assert (
        chore_program("discard", []).answer == {}
    )  # a fault of ours: no answer, and the traceback in its log
    with pytest.raises(ValueError, match="there are"):
        chores.chore_step("nonsense", {})


def test_only_chores_that_talk_to_the_project_get_the_persons_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent.sock")
    assert "SSH_AUTH_SOCK" in chores.chore_step("fetch", {})["env"]
    assert "SSH_AUTH_SOCK" not in chores.chore_step("intake", {})["env"]
