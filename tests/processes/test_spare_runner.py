"""A runner may begin before its order is made: what becomes of it with an order, without one, and without its launcher."""

import json
import os
import subprocess
import sys
from pathlib import Path

from pipeline.processes import spawn
from pipeline.processes.identity import Identity
from pipeline.processes.spawn import Begun, Spare, give_up, launching, touched
from tests.processes.conftest import Start
from tests.processes.runs import program, shell, until, wait_end

WAITING = "import sys; print('ready', flush=True); sys.stdin.read()"


def pid_of(begun: Begun | None) -> int:
    assert begun is not None
    return begun.pid


def identity_of(begun: Begun | None) -> Identity:
    found = Identity.of(pid_of(begun))
    assert found is not None
    return found


def filled(spare: Spare | None = None) -> Spare:
    spare = spare or Spare(pause=0)
    spare.kept = True
    spare.refill()
    until(lambda: spare.begun, "a spare runner")
    return spare


def test_a_runner_that_gets_no_order_ends_and_touches_nothing(tmp_path: Path) -> None:
    with Begun() as begun:
        assert begun.waits()
        begun.hand_over(b"", 1e12)
        assert begun.said(1e12) == b""
        until(lambda: not begun.waits(), "the end of the runner")
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_an_order_is_no_order(prepared: Start) -> None:
    run = prepared(shell("true"))
    whole = json.dumps({"folder": str(run.folder), "spec": run.spec}).encode()
    with Begun() as begun:
        begun.hand_over(whole[:-1], 1e12)
        assert b"is not JSON" in begun.said(1e12)
    assert give_up(run.runs, run.key) == "void"


def test_a_large_order_arrives_whole(prepared: Start) -> None:
    run = prepared(program("import sys; print(len(sys.stdin.read()))", stdin="x" * 3_000_000))
    run.start()
    run.finish()
    assert run.output() == [b"3000000"]


def test_the_runner_carries_the_mark_of_the_order_that_it_got(prepared: Start) -> None:
    run = prepared(program(WAITING, keep_stdin=True))
    identity = run.start()
    run.wait_line(b"ready")
    assert identity.pid in run.alive()
    run.ask("close_stdin")
    run.finish()


def test_a_spare_runner_is_used_once_and_the_next_one_begun(prepared: Start) -> None:
    spare = filled()
    first = pid_of(spare.begun)
    run = prepared(shell("echo done"))
    with spare.take() as begun:
        assert begun.pid == first and spare.begun is None
        begun.order(run.runs, run.key, run.spec)
    assert run.finish()["code"] == 0 and run.output() == [b"done"]
    with filled(spare).take() as second:
        assert second.pid != first


def test_a_launcher_that_does_not_live_long_keeps_none() -> None:
    spare = Spare(0)
    spare.refill()
    with spare.take() as begun:
        assert begun.waits() and spare.begun is None


def test_a_spare_runner_that_died_is_not_used() -> None:
    spare = filled()
    dead = identity_of(spare.begun)
    os.kill(dead.pid, 9)
    wait_end(dead)
    with spare.take() as begun:
        assert begun.pid != dead.pid and begun.waits()


def test_a_fork_does_not_use_its_parents_spare_runner() -> None:
    spare = filled()
    child = os.fork()
    if not child:
        with spare.take() as begun:
            os._exit(0 if begun.launcher == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0
    with spare.take() as begun:
        assert begun.waits()


def test_a_runner_without_an_order_dies_with_its_launcher() -> None:
    source = (
        "import os, sys; from pipeline.processes.spawn import Begun; begun = Begun();"
        "print(begun.pid, flush=True); sys.stdin.read(); os.kill(os.getpid(), 9)"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", source],
        cwd=Path(spawn.__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with launcher:
        assert launcher.stdout and launcher.stdin
        spare = Identity.of(int(launcher.stdout.readline()))
        assert spare is not None
        launcher.stdin.close()
    assert launcher.returncode == -9
    wait_end(spare)


def test_of_two_who_launch_the_same_process_the_second_goes_home(tmp_path: Path) -> None:
    with launching(tmp_path, "ab" * 10) as first, launching(tmp_path, "ab" * 10) as second:
        assert (first, second) == (True, False)
    with launching(tmp_path, "ab" * 10) as again:
        assert again and not touched(tmp_path, "ab" * 10)
    give_up(tmp_path, "ab" * 10)
    assert touched(tmp_path, "ab" * 10)
