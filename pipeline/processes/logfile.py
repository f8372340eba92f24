"""Reads a runner's log: whole records only, from any offset that an earlier read gave back."""

import os
from pathlib import Path
from typing import NamedTuple

from pipeline.processes.records import (
    CONTINUED,
    GAP,
    HEAD,
    MAX_DATA,
    NO_NEWLINE,
    NOTE,
    STDERR,
    STDOUT,
    VERSION,
)

__all__ = [
    "CONTINUED",
    "GAP",
    "NOTE",
    "NO_NEWLINE",
    "STDERR",
    "STDOUT",
    "LogDamaged",
    "Record",
    "read_records",
]


class LogDamaged(Exception):
    """The log of a process cannot be read on."""


class Record(NamedTuple):
    """`data` without its newline; `end` is the offset of the next record. Times in nanoseconds."""

    stream: int
    flags: int
    monotonic_ns: int
    wall_ns: int
    data: bytes
    end: int


def read_records(path: Path, offset: int, max_bytes: int) -> tuple[list[Record], int]:
    """The whole records from `offset` on, and the offset after the last of them.

    Reads about `max_bytes` of the file, and always enough for one record. A torn record at the end of the
    file is left for the next read; a file that does not exist, or is shorter than `offset`, has none
    (compare its size to tell). Raises LogDamaged when what stands there is no record, OSError when the file
    cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return [], offset
    try:
        data = os.pread(fd, max(max_bytes, HEAD.size + MAX_DATA), offset)
    finally:
        os.close(fd)
    records: list[Record] = []
    unpack, head, size, at = HEAD.unpack_from, HEAD.size, len(data), 0
    new = tuple.__new__  # Record's own takes twice as long
    while at + head <= size:
        version, stream, flags, _, monotonic_ns, wall_ns, length = unpack(data, at)
        if version != VERSION or length > MAX_DATA:
            raise LogDamaged(
                f"The log {path.name} of process {path.parent.name} cannot be read on from byte "
                f"{offset + at}: there is no record. The run can be "
                "judged by its exit record and by what was read before."
            )
        end = at + head + length
        if end > size:
            break
        records.append(
            new(Record, (stream, flags, monotonic_ns, wall_ns, data[at + head : end], offset + end))
        )
        at = end
    return records, offset + at
