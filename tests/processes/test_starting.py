"""A runner may begin before its order is made: what becomes of it with an order, without one, and without its launcher."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.processes import spawn
from pipeline.processes.identity import Identity
from pipeline.processes.spawn import give_up, launching, touched
from pipeline.processes.starting import Begun, ForkServer
from tests.processes.conftest import Start
from tests.processes.runs import program, shell, until, wait_end

WAITING = "import sys; print('ready', flush=True); sys.stdin.read()"


def open_in(pid: int) -> list[str]:
    return [str(end.readlink()) for end in Path(f"/proc/{pid}/fd").iterdir()]


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    server.start()
    yield server
    server.close()


def started(server: ForkServer) -> Identity:
    with server.begin():
        found = Identity.of(server.pid)
    assert found is not None
    return found


def test_a_runner_that_gets_no_order_ends_and_touches_nothing(tmp_path: Path) -> None:
    with Begun().alone() as begun:
        begun.hand_over(b"", 1e12)
        assert begun.said(1e12) == b""
    assert list(tmp_path.iterdir()) == []


def test_a_forked_runner_that_gets_no_order_ends(server: ForkServer) -> None:
    with server.begin() as begun:
        begun.hand_over(b"", 1e12)
        assert begun.said(1e12) == b""


def test_a_part_of_an_order_is_no_order(prepared: Start, server: ForkServer) -> None:
    run = prepared(shell("true"))
    whole = json.dumps({"folder": str(run.folder), "spec": run.spec}).encode()
    for begin in (Begun().alone, server.begin):
        with begin() as begun:
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


def test_a_forked_runner_is_like_one_of_its_own(prepared: Start, server: ForkServer) -> None:
    """It has the mark, the lock, a session of its own, and goes on when its fork server is gone."""
    run = prepared(program(WAITING, keep_stdin=True))
    with server.begin() as begun:
        identity = begun.order(run.runs, run.key, run.spec)
    run.wait_line(b"ready")
    assert identity.pid in run.alive() and spawn.runner_alive(run.runs, run.key)
    assert os.getsid(identity.pid) not in (os.getsid(0), os.getsid(server.pid))
    assert str(Path(f"/proc/{server.pid}/fd/0").readlink()) not in open_in(identity.pid)
    server.close()
    run.ask("close_stdin")
    assert run.finish()["code"] == 0


def test_one_fork_server_begins_all(prepared: Start, server: ForkServer) -> None:
    runs = [prepared(shell(f"echo {n}")) for n in range(3)]
    first = started(server)
    for run in runs:
        with server.begin() as begun:
            begun.order(run.runs, run.key, run.spec)
    assert [run.finish()["code"] for run in runs] == [0, 0, 0]
    assert [run.output() for run in runs] == [[b"0"], [b"1"], [b"2"]]
    assert server.pid == first.pid


def test_a_launcher_that_does_not_live_long_has_none(prepared: Start) -> None:
    server, run = ForkServer(), prepared(shell("echo done"))
    with server.begin() as begun:
        begun.order(run.runs, run.key, run.spec)
    assert run.finish()["code"] == 0 and server.pid == 0


def test_a_fork_server_that_died_is_replaced(prepared: Start, server: ForkServer) -> None:
    dead = started(server)
    os.kill(dead.pid, 9)
    wait_end(dead)
    run = prepared(shell("echo done"))
    with server.begin() as begun:
        begun.order(run.runs, run.key, run.spec)
    assert run.finish()["code"] == 0 and server.pid not in (0, dead.pid)


def test_a_fork_of_the_launcher_shares_it_and_replaces_a_dead_one_by_its_own(
    prepared: Start, server: ForkServer
) -> None:
    first = started(server)
    shared, own = prepared(shell("echo one")), prepared(shell("echo two"))
    child = os.fork()
    if not child:
        with server.begin() as begun:
            begun.order(shared.runs, shared.key, shared.spec)
        used_its_parents = server.pid == 0
        os.kill(first.pid, 9)
        wait_end(first)
        with server.begin() as begun:
            begun.order(own.runs, own.key, own.spec)
        other = server.pid
        server.close()
        os._exit(0 if used_its_parents and other not in (0, first.pid) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [run.finish()["code"] for run in (shared, own)] == [0, 0]


@pytest.mark.parametrize("begin", ["Begun().alone()", "server.start()"])
def test_what_waits_for_an_order_dies_with_its_launcher(begin: str) -> None:
    source = (
        "import os, sys; from pipeline.processes.starting import Begun, ForkServer; server = ForkServer();\n"
        f"begun = {begin}; print(server.pid or begun.pid, flush=True); sys.stdin.read(); os.kill(os.getpid(), 9)"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", source],
        cwd=Path(spawn.__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with launcher:
        assert launcher.stdout and launcher.stdin
        waiting = Identity.of(int(launcher.stdout.readline()))
        assert waiting is not None
        launcher.stdin.close()
    assert launcher.returncode == -9
    wait_end(waiting)


@pytest.mark.parametrize("forked", [False, True])
def test_a_chore_is_done_in_a_fork_that_holds_nothing_of_the_runners(
    prepared: Start, server: ForkServer, forked: bool
) -> None:
    """No lock, log or socket stays open in it; what it cannot do is said on its stderr."""
    run = prepared({**CHORE, "keep_stdin": True})
    with server.begin() if forked else Begun().alone() as begun:
        identity = begun.order(run.runs, run.key, run.spec)
    [chore] = until(lambda: set(run.alive()) - {identity.pid}, "the chore")
    until(lambda: len(list(Path(f"/proc/{chore}/fd").iterdir())) == 3, "its three descriptors and no more")
    run.ask("close_stdin")
    assert run.finish()["code"] == 1
    assert run.output(2)[-1].startswith(b"json.decoder.JSONDecodeError")


CHORE = {
    "name": "probe",
    "chore": "probe",
    "env": {"PATH": os.environ["PATH"]},
    "stdin": "no JSON",
    "main": True,
}


def test_of_two_who_launch_the_same_process_the_second_goes_home(tmp_path: Path) -> None:
    with launching(tmp_path, "ab" * 10) as first, launching(tmp_path, "ab" * 10) as second:
        assert (first, second) == (True, False)
    with launching(tmp_path, "ab" * 10) as again:
        assert again and not touched(tmp_path, "ab" * 10)
    give_up(tmp_path, "ab" * 10)
    assert touched(tmp_path, "ab" * 10)
