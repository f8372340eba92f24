"""SIGKILL at each named instant: the child dies too, and the run folder says what to do."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.processes.identity import Identity, is_alive
from pipeline.processes.logfile import read_records
from pipeline.processes.runner_start import CRASH_POINTS
from pipeline.processes.spawn import give_up, read_exit, read_identity, runner_alive
from pipeline.processes.starting import SpawnFailed
from pipeline.processes.sweep import sweep_marked
from tests.processes.runs import Run, program, shell, until, wait_end

Start = Callable[..., Run]
WAITING = "import os; print('ready', flush=True); os.read(0, 1)"


def wait_free(run: Run) -> None:
    until(lambda: not runner_alive(run.runs, run.key), "the lock is free")


def test_killed_before_its_identity_a_launch_is_void(
    prepared: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(shell("echo never"))
    monkeypatch.setenv("HUSKIES_CRASH", "runner-after-lock")
    with pytest.raises(SpawnFailed, match="said nothing and may have been killed"):
        run.start()
    wait_free(run)
    assert read_identity(run.runs, run.key) is None
    assert give_up(run.runs, run.key) == "void"
    monkeypatch.delenv("HUSKIES_CRASH")
    with pytest.raises(SpawnFailed, match="given up before its runner started"):
        run.start()
    assert run.output() == []


def test_killed_after_its_identity_a_run_is_over_without_a_child(
    prepared: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(shell("echo never"))
    monkeypatch.setenv("HUSKIES_CRASH", "runner-after-identity")
    with pytest.raises(SpawnFailed):
        run.start()
    identity = read_identity(run.runs, run.key)
    assert identity is not None
    wait_end(identity)
    assert give_up(run.runs, run.key) == "finished"
    assert read_exit(run.runs, run.key) is None
    assert run.output() == []


@pytest.mark.parametrize(
    "point",
    [
        "runner-child-started",
        "runner-child-started:2",
        "runner-child-exited",
        "runner-between-steps",
        "runner-before-exit",
    ],
)
def test_killed_later_it_takes_the_child_along_and_leaves_no_exit_record(
    prepared: Start, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    run = prepared(shell("echo setup", name="setup", main=False), shell("echo agent"))
    monkeypatch.setenv("HUSKIES_CRASH", point)
    try:
        run.start()
    except SpawnFailed:
        pytest.fail("it was ready before this point")
    identity = read_identity(run.runs, run.key)
    assert identity is not None
    wait_end(identity)
    until(lambda: run.alive() == [], "the child died with its runner")
    assert not runner_alive(run.runs, run.key)
    assert give_up(run.runs, run.key) == "finished"
    assert read_exit(run.runs, run.key) is None
    assert sweep_marked(run.key) == []
    size = (run.folder / "log").stat().st_size
    assert read_records(run.folder / "log", 0, 1 << 20)[1] == size
    if point == "runner-before-exit":
        assert run.output() == [b"setup", b"agent"]


def test_every_crash_point_is_killed_at_in_this_file() -> None:
    source = Path(__file__).read_text()
    assert [point for point in CRASH_POINTS if f'"{point}"' not in source] == []


def test_the_child_does_not_see_the_crash_variable(prepared: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepared(shell("env"))
    monkeypatch.setenv("HUSKIES_CRASH", "some-other-point")
    run.start()
    run.finish()
    assert not [line for line in run.output() if line.startswith(b"HUSKIES_CRASH")]


def test_a_running_program_dies_with_its_runner_and_strays_are_swept(started: Start) -> None:
    run = started(shell("setsid nohup sleep 600 >/dev/null 2>&1 & echo pid $!; echo ready; sleep 600"))
    run.wait_line(b"ready")
    child = Identity.of(run.ask("status")["child_pid"])
    stray = Identity.of(run.wait_number(b"pid "))
    runner = read_identity(run.runs, run.key)
    assert child and stray and runner
    os.kill(runner.pid, signal.SIGKILL)
    wait_end(runner)
    wait_end(child)
    assert is_alive(stray), "the parent's death reaches the direct child only"
    assert give_up(run.runs, run.key) == "finished"
    assert sweep_marked(run.key) == []
    assert not is_alive(stray)


def test_a_living_runner_is_not_given_up(started: Start) -> None:
    run = started(program(WAITING, keep_stdin=True))
    assert give_up(run.runs, run.key) == "alive"
    assert runner_alive(run.runs, run.key)
    run.ask("close_stdin")
    run.finish()
    assert give_up(run.runs, run.key) == "finished"
    assert not runner_alive(run.runs, run.key)


def test_a_launch_that_never_began_is_void_for_good(prepared: Start) -> None:
    run = prepared(shell("echo never"))
    assert not runner_alive(run.runs, run.key)
    assert give_up(run.runs, run.key) == "void"
    assert give_up(run.runs, run.key) == "void"
    with pytest.raises(SpawnFailed, match="given up"):
        run.start()


def test_a_run_folder_is_used_once(finished: Start) -> None:
    run = finished(shell("echo once"))
    with pytest.raises(SpawnFailed, match="a run folder is used once"):
        run.start()
    assert run.output() == [b"once"]


def test_of_two_rival_runners_exactly_one_lives(prepared: Start) -> None:
    run = prepared(program(WAITING, keep_stdin=True))
    outcomes: list[object] = []

    def launch() -> None:
        try:
            outcomes.append(run.start())
        except SpawnFailed as failure:
            outcomes.append(str(failure))

    rivals = [threading.Thread(target=launch) for _ in range(4)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    winners = [outcome for outcome in outcomes if isinstance(outcome, Identity)]
    assert winners == [read_identity(run.runs, run.key)]
    assert all("lock" in str(o) or "once" in str(o) for o in outcomes if o not in winners)
    run.wait_line(b"ready")
    run.ask("close_stdin")
    run.finish()
    assert run.output() == [b"ready"]


@pytest.mark.parametrize("turn", range(6))
def test_a_launch_and_its_giving_up_have_one_outcome(prepared: Start, turn: int) -> None:
    run = prepared(program(WAITING, keep_stdin=True))
    run.folder.mkdir(parents=True)
    answers: list[str] = []
    ready = threading.Barrier(2)

    def giver() -> None:
        ready.wait()
        # The later turns give up later, so that both outcomes come up.
        for _ in range(turn * 4):
            runner_alive(run.runs, run.key)
        answers.append(give_up(run.runs, run.key))

    thread = threading.Thread(target=giver)
    thread.start()
    ready.wait()
    try:
        run.start()
        lives = True
    except SpawnFailed:
        lives = False
    thread.join()
    assert answers == (["alive"] if lives else ["void"])
    if lives:
        run.ask("close_stdin")
        run.finish()
    assert read_identity(run.runs, run.key) is None or lives


def test_a_spawn_that_cannot_work_says_why(prepared: Start, tmp_path: Path) -> None:
    with pytest.raises(SpawnFailed, match="/no/such/python cannot be run"):
        prepared(shell("true")).start("/no/such/python")
    with pytest.raises(SpawnFailed, match="its runner said: "):
        prepared(shell("true")).start("/bin/cat")
    (tmp_path / "file").touch()
    with pytest.raises(SpawnFailed, match=r"its run folder .* cannot be made"):
        Run(tmp_path / "file", [shell("true")], {}).start()


def test_the_runner_outlives_whoever_started_it(prepared: Start) -> None:
    """As when the server is killed: another process spawns it, and ends at once with all its group."""
    run = prepared(program(WAITING, keep_stdin=True))
    source = (
        "import json, sys, pathlib, os, signal; from pipeline.processes.spawn import spawn;"
        "spawn(pathlib.Path(sys.argv[1]), sys.argv[2], json.load(sys.stdin)); os.killpg(0, signal.SIGKILL)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", source, run.runs, run.key],
        cwd=Path(__file__).parents[2],
        input=json.dumps(run.spec).encode(),
        start_new_session=True,
    )
    assert ended.returncode == -signal.SIGKILL
    run.wait_line(b"ready")
    run.ask("close_stdin")
    assert run.finish()["code"] == 0


def test_the_runner_imports_only_a_few_modules_of_the_standard_library() -> None:
    source = "import sys; sys.path.append(sys.argv[1]); import pipeline.processes.runner_start as r"
    source += "; print(*sys.modules)"
    listed = subprocess.run(
        [sys.executable, "-I", "-S", "-c", source, Path(__file__).parents[2]],
        capture_output=True,
        check=True,
        text=True,
    )
    heavy = {
        "re",
        "enum",
        "json",
        "typing",
        "socket",
        "subprocess",
        "logging",
        "pathlib",
        "ctypes",
        "signal",
        "dataclasses",
    }
    assert heavy & set(listed.stdout.split()) == set()
