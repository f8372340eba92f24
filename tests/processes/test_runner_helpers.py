"""A helper lives beside a run's steps: ready before the step that needs it, passed by when a step ends, gone with the run."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.processes.runs import PATH, Run, program, shell, until

Start = Callable[..., Run]

READY = "import sys, time; order = sys.stdin.read(); print('ready', flush=True); time.sleep(1000)"


def helper(source: str = READY, order: str = "order") -> dict[str, Any]:
    argv = [sys.executable, "-I", "-S", "-c", source]
    return {"name": "sidecar", "argv": argv, "env": {"PATH": PATH}, "stdin": order}


def begin(prepared: Start, *steps: dict[str, Any], helpers: list[dict[str, Any]], **limits: Any) -> Run:
    run = prepared(*steps, **limits)
    run.spec["helpers"] = helpers
    run.start()
    return run


def helper_pid(run: Run) -> int:
    """The marked process that is neither the runner nor below its step."""
    step = run.ask("status")["child_pid"]
    runner = run.ask("status")["pid"]
    return next(pid for pid in run.alive() if pid not in (step, runner))


def test_a_helper_is_ready_before_the_step_that_needs_it_and_ends_with_the_run(
    prepared: Start, tmp_path: Path
) -> None:
    place, fifo = tmp_path / "order", tmp_path / "fifo"
    os.mkfifo(fifo)
    # It is ready only after the first step, which needs none, has looked.
    slow = f"import sys; open({str(fifo)!r}).read(); open({str(place)!r}, 'w').write(sys.stdin.read()); print('ready', flush=True)"
    slow += "; import signal; signal.pause()"
    run = begin(
        prepared,
        shell(f"test -e {place} || echo early; : > {fifo}", name="copy", main=False),
        shell(f"wc -c < {place}", helped=True),
        helpers=[helper(slow, "x" * 200_000)],
    )
    record = run.finish()
    assert record["outcome"] == "exited" and record["verified"] is True
    assert run.output() == [b"early", b"200000"]
    assert run.alive() == []


def test_steps_that_end_or_leave_something_behind_do_not_take_the_helper_with_them(prepared: Start) -> None:
    run = begin(
        prepared,
        shell("sleep 1000 >/dev/null 2>&1 & echo one", name="first", main=False, helped=True),
        shell("echo two; read word; echo $word", helped=True, keep_stdin=True),
        shell("echo three", name="after", main=False, helped=True),
        helpers=[helper()],
    )
    run.wait_line(b"two")
    assert len(run.notes("sweep")) == 1
    assert helper_pid(run) in run.alive()
    run.ask("message", text="go on")
    assert run.finish()["outcome"] == "exited"
    assert run.output() == [b"one", b"two", b"go on", b"three"]
    assert run.notes("helper-ended") == [] and run.alive() == []


def test_a_stop_is_polite_to_the_program_and_does_not_wait_for_the_helper(prepared: Start) -> None:
    run = begin(
        prepared,
        shell("trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.01; done", helped=True),
        helpers=[helper()],
        grace=20.0,
    )
    run.wait_line(b"up")
    begun = time.monotonic()
    run.ask("stop", reason="enough")
    assert run.finish()["outcome"] == "stopped"
    assert time.monotonic() - begun < 10
    assert b"asked" in run.output() and run.alive() == []


def test_a_helper_that_dies_is_started_again_and_the_program_goes_on(prepared: Start) -> None:
    run = begin(
        prepared, shell("echo up; read word; echo $word", helped=True, keep_stdin=True), helpers=[helper()]
    )
    run.wait_line(b"up")
    first = helper_pid(run)
    os.kill(first, signal.SIGKILL)
    until(lambda: run.notes("helper-ended"), "a note of its end")
    until(lambda: len(run.alive()) == 3, "another helper")
    run.ask("message", text="still here")
    assert run.finish()["outcome"] == "exited"
    assert run.output() == [b"up", b"still here"]
    assert run.notes("helper-ended")[0]["how"] == "by signal 9"


def test_a_helper_that_cannot_stay_up_ends_the_run_with_what_it_said(prepared: Start, tmp_path: Path) -> None:
    meet = tmp_path / "meet"  # the program holds its end open: each helper ends once there is a program
    os.mkfifo(meet)
    dying = f"import sys; sys.stdin.read(); print('ready', flush=True); open({str(meet)!r}); print('no more', flush=True)"
    run = begin(
        prepared, shell(f"echo up; exec 3> {meet}; exec sleep 1000", helped=True), helpers=[helper(dying)]
    )
    record = run.finish()
    assert (record["outcome"], record["main_started"]) == ("helper_lost", True)
    assert record["reason"] == "The helper sidecar ended with code 0. It said: no more"
    assert len(run.notes("helper-ended")) == 4 and run.alive() == []


def test_a_helper_that_never_gets_ready_keeps_the_program_from_starting(prepared: Start) -> None:
    for broken, said in (
        ("print('no port', flush=True); raise SystemExit(7)", "with code 7. It said: no port"),
        (None, "No such file"),
    ):
        order = helper(broken) if broken else {**helper(), "argv": ["/no/such/program"]}
        run = begin(prepared, shell("echo never", helped=True), helpers=[order])
        record = run.finish()
        assert (record["outcome"], record["step"], record["main_started"]) == ("helper_lost", "agent", False)
        assert said in record["reason"] and run.output() == []


def test_a_runner_that_is_killed_takes_its_helper_with_it(prepared: Start) -> None:
    run = begin(prepared, shell("echo up; exec sleep 1000", helped=True), helpers=[helper()])
    run.wait_line(b"up")
    pid = helper_pid(run)
    os.kill(run.ask("status")["pid"], signal.SIGKILL)
    until(
        lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text(), "its end"
    )


def test_a_run_without_helpers_does_not_wait_for_any(prepared: Start) -> None:
    run = prepared(program("print('ran')", helped=True))
    run.start()
    assert run.finish()["outcome"] == "exited" and run.output() == [b"ran"]
