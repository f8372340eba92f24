"""Stop really stops: nothing that a child started, however it hid, is alive when the run is over."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.processes.identity import Identity, is_alive
from pipeline.processes.spawn import read_identity
from tests.processes.runs import PATH, Run, program, shell, until

Start = Callable[..., Run]

STUBBORN = """
import signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print('ready', flush=True)
while True: time.sleep(60)
"""
POLITE = """
import os, signal, time
def end(*_):
    os.write(1, b'bye\\n')  # print may be at work already
    os._exit(4)
signal.signal(signal.SIGTERM, end)
print('ready', flush=True)
while True: time.sleep(60)
"""
# Takes lines: "stop" is its graceful end, anything else is repeated.
TALKER = """
import sys
print('ready', flush=True)
for line in sys.stdin:
    print('heard ' + line.rstrip(), flush=True)
    if line.strip() == 'stop':
        print('result', flush=True)
print('end of input', flush=True)
"""


def assert_nothing_left(run: Run) -> None:
    assert run.alive() == []


def test_a_polite_program_ends_by_sigterm(started: Start) -> None:
    run = started(program(POLITE), grace=30)
    run.wait_line(b"ready")
    assert run.ask("stop", reason="Alice asked") == {"ok": True}
    record = run.finish()
    assert (record["outcome"], record["code"], record["reason"]) == ("stopped", 4, "Alice asked")
    assert run.output()[-1] == b"bye"
    assert record["verified"] is True


def test_a_program_that_ignores_sigterm_is_killed_after_the_grace(started: Start) -> None:
    run = started(program(STUBBORN), grace=30)
    run.wait_line(b"ready")
    asked = time.monotonic()
    run.ask("stop", grace=0.3)
    record = run.finish()
    assert (record["outcome"], record["code"], record["signal"]) == ("stopped", None, signal.SIGKILL)
    assert 0.3 <= time.monotonic() - asked < 5
    assert_nothing_left(run)


def test_a_second_stop_can_only_hurry(started: Start) -> None:
    run = started(program(STUBBORN))
    run.wait_line(b"ready")
    run.ask("stop", grace=600, reason="first")
    run.ask("stop", grace=900, reason="second")
    assert run.ask("status")["stopping"] == "first"
    run.ask("stop", grace=0)
    assert run.finish()["reason"] == "first"


HIDING = {
    "setsid nohup": "setsid nohup sleep 600 >/dev/null 2>&1 & echo pid $!",
    "holds stdout": "setsid sleep 600 & echo pid $!",
    "ignores everything": "(trap '' TERM HUP INT; setsid sleep 600) & echo pid $!",
    "double fork": "(setsid sh -c 'sleep 600 & echo pid $!') ",
    "stopped": "sleep 600 & kill -STOP $!; echo pid $!",
    "without its marker": "env -i /bin/sleep 600 & echo pid $!",
}


@pytest.mark.parametrize("script", HIDING.values(), ids=HIDING.keys())
def test_what_a_program_left_behind_dies_with_the_step(finished: Start, script: str) -> None:
    run = finished(shell(f"{script}; exit 6"), shell("echo after", name="after", main=False))
    stray = run.wait_number(b"pid ")
    record = run.finish()
    assert record["code"] == 6 and record["verified"] is True
    assert Identity.of(stray) is None
    assert_nothing_left(run)


@pytest.mark.parametrize("script", HIDING.values(), ids=HIDING.keys())
def test_stop_ends_hidden_processes_too(started: Start, script: str) -> None:
    run = started(shell(f"{script}; trap '' TERM; echo ready; while :; do sleep 600; done"))
    run.wait_line(b"ready")
    stray = Identity.of(run.wait_number(b"pid "))
    assert stray is not None
    run.ask("stop", grace=0.1)
    assert run.finish()["verified"] is True
    assert not is_alive(stray)
    assert_nothing_left(run)


def test_a_process_outside_the_tree_is_found_by_its_marker(started: Start, prepared: Start) -> None:
    """As when another program of the host started it for the agent: only its environment tells."""
    other = started(program("import os; os.read(0, 1)", keep_stdin=True))
    run = prepared(program(POLITE))
    # A second runner's child that carries the first one's mark.
    stranger = prepared(program("print('ready', flush=True); import time; time.sleep(600)", name="stranger"))
    stranger.spec["marker"] = {"HUSKIES_SESSION": other.key}
    stranger.start()
    stranger.wait_line(b"ready")
    run.start()
    run.wait_line(b"ready")
    other.ask("close_stdin")
    assert other.finish()["verified"] is True
    assert stranger.finish()["signal"] == signal.SIGKILL
    assert run.ask("status")["ok"] is True
    run.ask("stop")
    run.finish()


def test_output_of_a_grandchild_is_read_for_a_moment_only(finished: Start) -> None:
    run = finished(shell("(trap '' HUP; while :; do echo late; sleep 0.01; done) & echo early; exit 0"))
    record = run.finish()
    assert run.output()[0] == b"early" or b"early" in run.output()
    assert record["code"] == 0
    assert record["ended"] - record["started"] < 3
    assert_nothing_left(run)


def test_a_fork_bomb_is_outrun(started: Start) -> None:
    # Each fork takes a token from a pipe: one that gets away ends at 1,000 processes, and the machine lives.
    bomb = """
import os
tokens, given = os.pipe()
os.write(given, b'x' * 1000)
os.write(1, b'ready\\n')
while os.read(tokens, 1):
    os.fork()
"""
    run = started(program(bomb))
    run.wait_line(b"ready")
    run.ask("stop", grace=0)
    assert run.finish()["verified"] is True
    assert_nothing_left(run)


def test_stop_during_a_preparing_step_ends_the_run(started: Start) -> None:
    run = started(shell("echo ready; sleep 600", name="setup", main=False), shell("echo never"))
    run.wait_line(b"ready")
    run.ask("stop")
    record = run.finish()
    assert (record["outcome"], record["step"], record["main_started"]) == ("stopped", "setup", False)
    assert run.output() == [b"ready"]


def test_stop_during_an_optional_step_ends_the_run(started: Start) -> None:
    run = started(shell("echo ready; sleep 600", name="warm", main=False, optional=True), shell("echo never"))
    run.wait_line(b"ready")
    run.ask("stop")
    assert run.finish()["step"] == "warm"
    assert run.output() == [b"ready"]


def test_stop_is_heard_during_a_file_step(started: Start, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.touch()
    os.truncate(big, 64 << 20)
    copies = [["copy", str(big), f"{tmp_path}/copy"]] * 200
    run = started({"name": "copy", "files": copies}, shell("echo never"))
    run.ask("stop")
    record = run.finish()
    assert (record["outcome"], record["step"]) == ("stopped", "copy")
    assert run.output() == []


def test_sigterm_to_the_runner_itself_ends_the_run_in_order(started: Start) -> None:
    run = started(program(POLITE))
    run.wait_line(b"ready")
    os.kill(run.ask("status")["pid"], signal.SIGTERM)
    record = run.finish()
    assert (record["outcome"], record["code"]) == ("stopped", 4)
    assert record["reason"] == "the runner got signal 15"


def test_stop_writes_the_interrupt_first_and_closes_stdin(started: Start) -> None:
    run = started(program(TALKER, keep_stdin=True, interrupt="stop\n"), grace=30)
    run.wait_line(b"ready")
    run.ask("stop")
    record = run.finish()
    assert (record["outcome"], record["code"], record["signal"]) == ("stopped", 0, None)
    assert run.output() == [b"ready", b"heard stop", b"result", b"end of input"]
    assert not run.notes("terminate")


def test_an_interrupt_without_effect_is_followed_by_sigterm(started: Start) -> None:
    run = started(program(POLITE, keep_stdin=True, interrupt="stop\n"), grace=0.4)
    run.wait_line(b"ready")
    run.ask("stop")
    assert run.finish()["code"] == 4
    assert [note["note"] for note in run.notes() if note["note"] in ("interrupt", "terminate")] == [
        "interrupt",
        "terminate",
    ]


def test_messages_and_interrupts_reach_a_running_program(started: Start) -> None:
    run = started(program(TALKER, stdin="first\n", keep_stdin=True, interrupt="stop"))
    run.wait_line(b"heard first")
    assert run.ask("message", text="hä\0")["ok"] is True
    run.wait_line("heard hä\0".encode())
    assert run.ask("interrupt")["ok"] is True
    run.wait_line(b"result")
    run.ask("close_stdin")
    assert run.finish()["outcome"] == "exited"
    assert [note["note"] for note in run.notes() if note["note"] in ("message", "interrupt")] == [
        "message",
        "interrupt",
    ]


def test_a_message_to_a_program_that_takes_none_is_refused(started: Start) -> None:
    run = started(program(POLITE))
    run.wait_line(b"ready")
    refusal = run.ask("message", text="hello")
    assert refusal == {
        "ok": False,
        "error": "The step agent did not take the message: its standard input is closed.",
    }
    assert "there is no text for it" in str(run.ask("interrupt")["error"])
    run.ask("stop")
    run.finish()


def test_messages_that_are_not_read_are_refused_before_memory_grows(started: Start) -> None:
    run = started(program(STUBBORN, keep_stdin=True))
    run.wait_line(b"ready")
    answers = [run.ask("message", text="x" * 60_000) for _ in range(30)]
    assert "it has not read the messages before" in str(answers[-1]["error"])
    run.ask("stop", grace=0)
    run.finish()


@pytest.mark.parametrize(
    ("step", "limits", "outcome", "reason"),
    [
        ({}, {"wall": 0.3}, "timeout", "it ran for 0.3 seconds"),
        ({}, {"silence": 0.3}, "silent", "it wrote nothing for 0.3 seconds"),
        ({}, {"lease": 0.3}, "lease", "no server renewed the lease of this process"),
        ({"timeout": 0.3}, {}, "timeout", "the step agent ran for 0.3 seconds"),
    ],
)
def test_each_limit_ends_the_run_by_its_name(
    finished: Start, step: dict[str, Any], limits: dict[str, Any], outcome: str, reason: str
) -> None:
    record = finished(shell("sleep 600", **step), shell("echo never", name="after"), **limits).finish()
    assert (record["outcome"], record["reason"], record["step"]) == (outcome, reason, "agent")


def test_output_on_either_stream_breaks_the_silence(finished: Start) -> None:
    script = "for i in 1 2 3 4 5; do sleep 0.15; printf . >&2; sleep 0.15; printf .; done"
    record = finished(shell(script), silence=1.0).finish()
    assert (record["outcome"], record["code"]) == ("exited", 0)


def test_silence_does_not_count_in_a_preparing_step(finished: Start) -> None:
    run = finished(shell("sleep 0.5", name="setup", main=False), shell("echo done"), silence=0.3)
    assert run.output() == [b"done"]


def test_an_optional_step_that_takes_too_long_is_left_behind(finished: Start) -> None:
    run = finished(
        shell("sleep 600", name="warm", main=False, optional=True, timeout=0.2), shell("echo done"), wall=30
    )
    assert run.output() == [b"done"]
    assert run.finish()["outcome"] == "exited"
    assert [note["outcome"] for note in run.notes("step-end")] == ["timeout", "exited"]


def test_a_renewed_lease_keeps_the_run_alive(started: Start) -> None:
    run = started(program(TALKER, keep_stdin=True), lease=1.0)
    run.wait_line(b"ready")
    assert run.ask("lease", seconds=600)["ok"] is True
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 1.2, "the old lease is over")
    assert run.ask("status")["stopping"] is None
    run.ask("close_stdin")
    assert run.finish()["outcome"] == "exited"


def test_an_idle_runner_uses_no_processor_time(started: Start) -> None:
    run = started(program(POLITE), wall=600, silence=500)
    run.wait_line(b"ready")
    pid = run.ask("status")["pid"]

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def switches() -> int:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)

    before, switched = ticks(), switches()
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 0.5, "half a second without a request")
    assert ticks() - before <= 1
    assert switches() - switched <= 3
    run.ask("stop")
    run.finish()


BWRAP = [
    "bwrap",
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
    "--unshare-pid",
    "--die-with-parent",
]


@pytest.mark.needs_bubblewrap
def test_a_program_in_a_sandbox_gets_the_sigterm_itself(started: Start) -> None:
    run = started(shell("", argv=[*BWRAP, "--", sys.executable, "-I", "-S", "-c", POLITE]), grace=30)
    run.wait_line(b"ready")
    run.ask("stop")
    record = run.finish()
    assert (record["outcome"], record["code"]) == ("stopped", 4)
    assert run.output()[-1] == b"bye"


@pytest.mark.needs_bubblewrap
def test_killing_the_sandbox_leaves_nothing_alive(started: Start) -> None:
    script = "setsid nohup sleep 600 >/dev/null 2>&1 & trap '' TERM; echo ready; while :; do sleep 600; done"
    run = started(shell("", argv=[*BWRAP, "--", "sh", "-c", script], env={"PATH": PATH}))
    run.wait_line(b"ready")
    assert len(run.alive()) >= 4
    run.ask("stop", grace=0.1)
    assert run.finish()["verified"] is True
    assert_nothing_left(run)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to change a process to another user")
def test_a_process_of_another_user_is_killed_too_where_the_runner_may(started: Start) -> None:
    source = (
        "import os, time\nif os.fork() == 0: os.setuid(65534)\nprint('ready', flush=True)\ntime.sleep(600)"
    )
    run = started(program(source))
    until(lambda: run.output() == [b"ready"] * 2, "both are ready")
    run.ask("stop", grace=0)
    assert run.finish()["verified"] is True


def test_the_identity_file_names_the_running_runner(started: Start) -> None:
    run = started(program(POLITE))
    identity = read_identity(run.runs, run.key)
    assert identity is not None and is_alive(identity)
    assert identity == Identity.of(run.ask("status")["pid"])
    run.ask("stop")
    run.finish()
    assert not is_alive(identity)
