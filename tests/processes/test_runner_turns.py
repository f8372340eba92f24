"""A program that takes lines from stdin ends when its turn is over and nothing more was said to it; no server is needed for that."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.processes import runner_turns
from tests.processes.runs import Run, program

Start = Callable[..., Run]
ENDS = {"type": "result"}
BEGINS = {"type": "init"}
# Each line of stdin is a turn: it says what it took, and that it is over.
ECHO = """
import sys
for line in sys.stdin:
    print('{"type":"init"}', flush=True)
    print("took " + line.strip(), flush=True)
    print('{"x":1,"type":"result","text":"' + "y" * %d + '"}', flush=True)
print("stdin is closed", flush=True)
"""


def echo(length: int = 1, **fields: Any) -> dict[str, Any]:
    return program(
        ECHO % length, keep_stdin=True, turn_ends=ENDS, turn_begins=BEGINS, stdin="prompt\n", **fields
    )


@pytest.mark.parametrize("length", [1, 200_000], ids=["short", "longer-than-the-runner-holds"])
def test_its_stdin_is_closed_when_its_turn_is_over(started: Start, length: int) -> None:
    run = started(echo(length))
    exit = run.finish()
    assert (exit["outcome"], exit["code"]) == ("exited", 0)
    assert b"stdin is closed" in run.output()


@pytest.mark.parametrize(
    "line",
    ['{"type":"note","inner":{"type":"result"}}', '{"type":"note","text":"\\\\"type\\\\":\\\\"result\\\\""}'],
)
def test_words_within_a_line_do_not_end_it(started: Start, line: str) -> None:
    source = f"import sys; print({line!r}, flush=True); print('next', flush=True); print('got ' + sys.stdin.readline())"
    run = started(program(source, keep_stdin=True, turn_ends=ENDS))
    run.wait_line(b"next")
    assert run.ask("message", text="still open")["ok"] is True
    run.finish()
    assert b"got still open" in run.output()


def test_what_was_said_meanwhile_is_one_more_turn(started: Start) -> None:
    source = (
        "import sys\nsys.stdin.readline()\nprint('busy', flush=True)\nsaid = sys.stdin.readline().strip()\n"
        'print(\'{"type":"result"}\', flush=True)\nprint(\'{"type":"init"}\', flush=True)\n'
        "print('second ' + said, flush=True)\nprint('late ' + sys.stdin.readline().strip(), flush=True)\n"
        "print('{\"type\":\"result\"}', flush=True)\nprint('rest ' + repr(sys.stdin.read()), flush=True)\n"
    )
    run = started(program(source, keep_stdin=True, turn_ends=ENDS, turn_begins=BEGINS, stdin="prompt\n"))
    run.wait_line(b"busy")
    run.ask("message", text="more", id="message-1")
    run.wait_line(b"second more")
    assert run.ask("message", text="and more", id="message-2")["ok"] is True, "the second turn still listens"
    run.finish()
    assert b"late and more" in run.output() and b"rest ''" in run.output()


def test_a_message_that_the_turn_took_up_does_not_keep_it_open(started: Start) -> None:
    source = (
        "import sys\nsys.stdin.readline()\nprint('busy', flush=True)\nsys.stdin.readline()\n"
        "print('{\"type\":\"result\"}', flush=True)\nprint('rest ' + repr(sys.stdin.read()), flush=True)\n"
    )
    run = started(program(source, keep_stdin=True, turn_ends=ENDS, turn_begins=BEGINS, stdin="prompt\n"))
    run.wait_line(b"busy")
    run.ask("message", text="more", id="message-1")
    exit = run.finish()
    assert exit["code"] == 0 and b"rest ''" in run.output()
    assert exit["ended"] - exit["started"] < runner_turns.TOLD_SECONDS + 10


def test_a_message_is_passed_on_once_however_often_it_is_sent(started: Start) -> None:
    source = "import sys\nprint('ready', flush=True)\nprint(sys.stdin.read().splitlines(), flush=True)"
    run = started(program(source, keep_stdin=True, interrupt="STOP"))
    run.wait_line(b"ready")
    for _ in range(3):
        assert run.ask("message", text="once", id="message-7", interrupt=True)["ok"] is True
    assert run.ask("message", text="each time")["ok"] is True
    assert run.ask("message", text="each time")["ok"] is True
    run.ask("close_stdin")
    run.finish()
    assert b"['STOP', 'once', 'each time', 'each time']" in run.output()
    notes = [note for note in run.notes() if note["note"] == "message"]
    assert [note.get("id") for note in notes] == ["message-7", None, None]


def test_an_answer_that_it_waits_for_delays_no_end(started: Start) -> None:
    source = (
        "import sys\nprint('asks', flush=True)\nprint('answer ' + sys.stdin.readline(), flush=True)\n"
        'print(\'{"type":"result"}\', flush=True)\nsys.stdin.read()\n'
    )
    run = started(program(source, keep_stdin=True, turn_ends=ENDS))
    run.wait_line(b"asks")
    run.ask("message", text="yes", id="answer-1", asked=True)
    exit = run.finish()
    assert exit["ended"] - exit["started"] < runner_turns.TOLD_SECONDS
