"""The control socket: small, versioned, and no client can hold the runner up."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.processes.control import ControlUnavailable, ask
from pipeline.processes.sweep import sweep_marked
from tests.processes.runs import PATIENCE, Run, program, shell, until

Start = Callable[..., Run]
WAITING = "import os; print('ready', flush=True); os.read(0, 1)"


@pytest.fixture
def run(started: Start) -> Iterator[Run]:
    """A run whose program waits for its stdin to close."""
    run = started(program(WAITING, keep_stdin=True))
    run.wait_line(b"ready")
    yield run
    run.ask("close_stdin")
    assert run.finish()["outcome"] == "exited"


def connect(run: Run) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    folder = os.open(run.folder, os.O_PATH)
    try:
        client.connect(f"/proc/self/fd/{folder}/control")
    finally:
        os.close(folder)
    return client


def say(client: socket.socket, data: bytes) -> dict[str, object]:
    client.sendall(data)
    with client.makefile("rb") as file:
        value = json.loads(file.readline())
    assert isinstance(value, dict)
    return value


def test_status_tells_where_the_run_stands(run: Run) -> None:
    status = run.ask("status")
    assert status["ok"] is True
    assert (status["step"], status["main_started"], status["stopping"]) == ("agent", True, None)
    assert Path(f"/proc/{status['child_pid']}/exe").samefile(sys.executable)
    assert status["log_size"] == (run.folder / "log").stat().st_size
    assert 86_300 < status["lease"] <= 86_400


def test_the_socket_is_the_owners_alone(run: Run) -> None:
    assert stat.S_IMODE((run.folder / "control").stat().st_mode) == 0o600


def test_a_new_process_can_ask_as_after_a_server_restart(run: Run) -> None:
    source = (
        "import sys, json, pathlib; from pipeline.processes.control import ask;"
        "print(json.dumps(ask(pathlib.Path(sys.argv[1]), sys.argv[2], {'do': 'status'})))"
    )
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", source, run.runs, run.key],
        cwd=root,
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(answer.stdout)["pid"] == run.ask("status")["pid"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"not json\n", "is not a line of JSON"),
        (b"\xff\n", "is not a line of JSON"),
        (b"[" * 60_000 + b"\n", "is not a line of JSON"),
        (b"[1]\n", "is not a JSON object"),
        (b'{"do": "status"}\n', "has version None; this runner speaks version 1"),
        (b'{"version": 1, "do": "dance"}\n', "does not know 'dance'"),
        (b'{"version": 1, "do": "stop", "grace": -1}\n', "grace is -1, and not a number of seconds"),
        (b'{"version": 1, "do": "lease", "seconds": NaN}\n', "seconds is nan, and not a number"),
        (b"x" * 70_000, "longer than 64 KiB"),
    ],
)
def test_nonsense_is_answered_with_a_sentence(run: Run, line: bytes, error: str) -> None:
    with connect(run) as client:
        answer = say(client, line)
    assert answer["ok"] is False
    assert error in str(answer["error"])
    assert run.ask("status")["stopping"] is None


def test_one_connection_may_ask_several_times(run: Run) -> None:
    with connect(run) as client:
        request = b'{"version": 1, "do": "status"}\n'
        assert say(client, request)["ok"] is True
        client.sendall(request[:10])
        assert run.ask("status")["ok"] is True, "half a request of another client holds nobody up"
        assert say(client, request[10:])["ok"] is True


def test_silent_clients_hold_nobody_up_and_the_oldest_makes_room(run: Run) -> None:
    clients = [connect(run) for _ in range(40)]
    try:
        assert run.ask("status")["ok"] is True
        assert clients[0].recv(1) == b"", "the oldest was closed"
    finally:
        for client in clients:
            client.close()


def test_a_client_that_reads_no_answer_is_dropped(run: Run) -> None:
    with connect(run) as client:
        client.setblocking(False)
        request = b'{"version": 1, "do": "status"}\n' * 1000

        def dropped() -> bool:
            try:
                client.send(request)
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        until(dropped, "the runner closes the connection")
    assert run.ask("status")["ok"] is True


def test_a_folder_with_a_long_name_has_a_socket_too(tmp_path: Path) -> None:
    runs = tmp_path / ("long" * 30) / ("longer" * 20)
    run = Run(runs, [program(WAITING, keep_stdin=True)], {})
    run.start()
    try:
        run.wait_line(b"ready")
        assert run.ask("status")["ok"] is True
        run.ask("close_stdin")
        run.finish()
    finally:
        assert sweep_marked(run.key) == []


def test_a_runner_that_has_ended_is_unavailable(finished: Start, tmp_path: Path) -> None:
    run = finished(shell("true"))
    with pytest.raises(ControlUnavailable, match="its runner has ended or has not begun"):
        run.ask("status")
    with pytest.raises(ControlUnavailable, match="it has no run folder"):
        ask(tmp_path, "0" * 20, {"do": "status"})


def test_a_runner_that_does_not_answer_is_unavailable(run: Run) -> None:
    pid = int(run.ask("status")["pid"])
    os.kill(pid, 19)
    try:
        with pytest.raises(ControlUnavailable, match=r"did not answer within 0\.2 seconds"):
            ask(run.runs, run.key, {"do": "status"}, timeout=0.2)
    finally:
        os.kill(pid, 18)
