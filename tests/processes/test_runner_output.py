"""Whatever a child writes is kept whole, in order and in bounded memory."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.processes.logfile import CONTINUED, GAP, NO_NEWLINE, STDERR, STDOUT
from tests.processes.runs import Run, program, shell, until

Start = Callable[..., Run]
MIB = 1 << 20


def high_water_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def test_each_line_is_one_record_with_its_stream_and_times(finished: Start) -> None:
    run = finished(shell("echo one; echo; echo two; echo bad >&2; printf end"))
    records = [record for record in run.records() if record.stream in (STDOUT, STDERR)]
    assert [r.data for r in records if r.stream == STDOUT] == [b"one", b"", b"two", b"end"]
    assert [r.data for r in records if r.stream == STDERR] == [b"bad"]
    assert [r.flags for r in records if r.stream == STDOUT] == [0, 0, 0, NO_NEWLINE]
    times = [r.monotonic_ns for r in run.records()]
    assert times == sorted(times)
    assert all(r.wall_ns > 1_600_000_000_000_000_000 for r in records)


def test_bytes_that_are_no_text_come_through(finished: Start) -> None:
    run = finished(program(r"import os; os.write(1, b'\xff\xfe\x00\x1b[31m\r\x80\n\x00\n')"))
    assert run.output() == [b"\xff\xfe\x00\x1b[31m\r\x80", b"\x00"]


@pytest.mark.parametrize(
    ("size", "pieces"),
    [(65535, [65535]), (65536, [65536]), (65537, [65536, 1]), (200_000, [65536] * 3 + [3392])],
)
def test_a_long_line_becomes_continued_records(finished: Start, size: int, pieces: list[int]) -> None:
    run = finished(program(f"import os; os.write(1, b'x' * {size} + b'\\nnext\\n')"))
    records = [record for record in run.records() if record.stream == STDOUT]
    assert [len(record.data) for record in records] == [*pieces, 4]
    assert [record.flags for record in records] == [CONTINUED] * (len(pieces) - 1) + [0, 0]


def test_a_line_of_64_mib_is_kept_whole_in_flat_memory(started: Start) -> None:
    # The child waits for stdin, so that the runner can be weighed while it lives.
    source = "import os\nfor _ in range(1024): os.write(1, b'z' * 65536)\nos.write(1, b'\\n')\nos.read(0, 1)"
    run = started(program(source, keep_stdin=True), log_bytes=100 * MIB)
    pid = run.ask("status")["pid"]
    before = high_water_kb(pid)
    until(lambda: run.ask("status")["log_size"] > 64 * MIB, "the whole line in the log")
    after = high_water_kb(pid)
    run.ask("close_stdin")
    assert run.finish()["code"] == 0
    data = b"".join(run.output())
    assert len(data) == 64 * MIB
    assert data.count(b"z") == 64 * MIB
    assert after - before < 3 * 1024, f"memory grew by {after - before} kB"
    assert after < 12 * 1024


@pytest.mark.long
def test_a_line_of_1_gib_is_survived_in_flat_memory(started: Start) -> None:
    source = "import os\nfor _ in range(16384): os.write(1, b'z' * 65536)\nos.read(0, 1)"
    run = started(program(source, keep_stdin=True), log_bytes=MIB, on_cap="keep_ends")
    pid = run.ask("status")["pid"]
    until(lambda: run.ask("status")["dropped"] > 1023 * MIB - 2 * 262144, "the whole line read")
    assert high_water_kb(pid) < 12 * 1024
    run.ask("close_stdin")
    assert run.finish()["code"] == 0


def test_endless_output_ends_the_run_at_the_cap(finished: Start) -> None:
    run = finished(shell("yes"), log_bytes=300_000)
    record = run.finish()
    assert record["outcome"] == "output_limit"
    assert record["reason"] == "it wrote more than 300000 bytes"
    assert record["dropped"] > 0
    assert run.output()[-1] == b"y"
    assert 299_000 < record["log_size"] < 301_000


def test_a_gate_keeps_head_and_tail_of_its_output(finished: Start) -> None:
    run = finished(program("for i in range(60000): print('line', i)"), log_bytes=200_000, on_cap="keep_ends")
    record = run.finish()
    assert (record["outcome"], record["code"]) == ("exited", 0)
    lines = run.output()
    assert (lines[0], lines[-1]) == (b"line 0", b"line 59999")
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers == sorted(set(numbers))
    jump = next(i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1)
    assert numbers[jump:] == list(range(numbers[jump], 60000))
    dropped = sum(len(f"line {i}") for i in range(numbers[jump - 1] + 1, numbers[jump]))
    assert record["dropped"] == dropped
    assert [note["bytes"] for note in run.notes("dropped")] == [dropped]
    assert [r.data for r in run.records() if r.flags & GAP] == [lines[jump]]
    assert 262144 - 100 < sum(len(line) + 24 for line in lines[jump:]) <= 262144


def test_output_under_the_cap_is_not_cut(finished: Start) -> None:
    run = finished(program("for i in range(100): print(i)"), on_cap="keep_ends")
    assert run.output() == [str(i).encode() for i in range(100)]
    assert not run.notes("dropped")


def test_a_full_disk_loses_output_but_not_the_child(started: Start) -> None:
    """The limit on file sizes stands in for a full disk: writes fail or are cut short, and it can be lifted."""
    source = """
import os
def say(count):
    for _ in range(count):
        os.write(1, b'x' * 999 + b'\\n')
    os.write(2, b'said\\n')
for count in (5, 100, 3):
    os.read(0, 1)
    say(count)
"""
    run = started(program(source, keep_stdin=True))
    pid = run.ask("status")["pid"]
    run.ask("message", text="")
    run.wait_line(b"said", stream=2)
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))
    run.ask("message", text="")
    until(lambda: run.ask("status")["dropped"] >= 90_000, "output dropped")
    assert (run.folder / "log").stat().st_size <= 8000
    assert run.records(), "the log is readable while the disk is full"
    resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    run.ask("message", text="")
    record = run.finish()
    assert (record["outcome"], record["code"]) == ("exited", 0)
    kept = sum(len(line) for line in run.output()) + sum(len(line) for line in run.output(2))
    assert kept + record["dropped"] == 108 * 999 + 3 * 4
    assert sum(note["bytes"] for note in run.notes("dropped")) == record["dropped"]
    assert any(r.flags & GAP for r in run.records())


def test_a_disk_that_stays_full_does_not_hide_the_exit(started: Start) -> None:
    run = started(program("import os; os.read(0, 1); print('x' * 100000)", keep_stdin=True))
    resource.prlimit(run.ask("status")["pid"], resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    run.ask("message", text="")
    record = run.finish()
    assert (record["outcome"], record["code"], record["dropped"]) == ("exited", 0, 100_000)
