"""Reading a log gives whole records only, from any offset."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.processes.logfile import CONTINUED, NO_NEWLINE, LogDamaged, Record, read_records
from pipeline.processes.records import HEAD
from pipeline.processes.runner_json import dumps, loads
from pipeline.processes.runner_log import Log


def record(data: bytes, stream: int = 1, flags: int = 0) -> bytes:
    return HEAD.pack(1, stream, flags, 0, 5, 6, len(data)) + data


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_torn_record_at_the_end_waits_for_its_rest(tmp_path: Path) -> None:
    whole, next_one = record(b"first"), record(b"second")
    for cut in range(len(next_one)):
        log = write(tmp_path / "log", whole + next_one[:cut])
        assert read_records(log, 0, 1 << 20) == ([Record(1, 0, 5, 6, b"first", len(whole))], len(whole))
        assert read_records(log, len(whole), 1 << 20) == ([], len(whole))
    log = write(tmp_path / "log", whole + next_one)
    assert [one.data for one in read_records(log, len(whole), 1 << 20)[0]] == [b"second"]


def test_a_reader_goes_on_at_the_offset_it_was_given(tmp_path: Path) -> None:
    lines = [os.urandom(i * 37 % 3000) for i in range(200)]
    log = write(tmp_path / "log", b"".join(map(record, lines)))
    found, offset = [], 0
    while True:
        some, offset = read_records(log, offset, 70_000)
        if not some:
            break
        assert some[-1].end == offset
        found += some
    assert [one.data for one in found] == lines
    assert offset == log.stat().st_size


def test_one_read_always_makes_progress(tmp_path: Path) -> None:
    log = write(tmp_path / "log", record(b"x" * 65536) * 2)
    assert len(read_records(log, 0, 1)[0]) == 1


def test_a_log_that_is_missing_or_shorter_has_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "absent", 0, 100) == ([], 0)
    assert read_records(write(tmp_path / "log", record(b"x")), 1000, 100) == ([], 1000)


@pytest.mark.parametrize(
    "damage", [b"\0" * 100, HEAD.pack(2, 1, 0, 0, 5, 6, 1) + b"x", HEAD.pack(1, 1, 0, 0, 5, 6, 65537)]
)
def test_what_is_no_record_is_named_with_its_place(tmp_path: Path, damage: bytes) -> None:
    log = write(tmp_path / "log", record(b"good") + damage)
    with pytest.raises(LogDamaged, match="from byte 28: there is no record"):
        read_records(log, 28, 1000)


@given(st.lists(st.binary(max_size=300) | st.just(b"\n") | st.just(b"y" * 70_000), max_size=30))
def test_any_output_in_any_pieces_is_kept_byte_for_byte(pieces: list[bytes]) -> None:
    fd = os.memfd_create("log")
    try:
        log = Log(fd, 1 << 30, keep_ends=False)
        for piece in pieces:
            log.feed(1, piece)
        log.end_streams()
        records, end = read_records(Path(f"/proc/self/fd/{fd}"), 0, 1 << 30)
        assert end == log.size == os.fstat(fd).st_size
        joined = b"".join(r.data + (b"" if r.flags & (CONTINUED | NO_NEWLINE) else b"\n") for r in records)
        assert joined == b"".join(pieces)
    finally:
        os.close(fd)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(json_values)
def test_the_runners_json_is_json(value: object) -> None:
    import json

    assert loads(json.dumps(value)) == value
    assert json.loads(dumps(value)) == value


@pytest.mark.parametrize("text", ["", "{", "1 2", '{"a": }', "'a'", '{"a": 1}x', "[" * 100_000])
def test_the_runners_json_refuses_what_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        loads(text)
