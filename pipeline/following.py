"""What the supervisor knows of a process that it follows, and what one turn takes from its log."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.logevents import NewEvent
from pipeline.models import Process
from pipeline.processes import logfile

logger = logging.getLogger("huskies.supervisor")

BYTES_PER_TURN = 512 * 1024
RECORDS_PER_TURN = 1000
"""Of one log, so that a turn stays short however short the lines are."""


@dataclass
class Followed:
    """One process that is followed: its row, where its log stands, and the descriptor that tells its end.

    `unread`: why its log is not read any further, "" while it is.
    """

    process: Process
    folder: Path
    pidfd: int | None = None
    size: int = 0
    gone: bool = False
    unread: str = ""
    checked: float = 0.0


@dataclass
class Batch:
    """One turn's part of a log: its records from `begin` to `offset`, whether there is more already, and what they mean."""

    followed: Followed
    begin: int
    records: list[logfile.Record]
    offset: int
    more: bool
    new: list[NewEvent] = field(default_factory=list)


def read(followed: Followed) -> Batch | None:
    """The next whole records of a log, at most a turn's share; None when there are none."""
    path, begin = followed.folder / "log", followed.process.offset
    if followed.unread:
        return None
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    if size == begin:
        return None
    try:
        records, offset = logfile.read_records(path, begin, BYTES_PER_TURN)
    except logfile.LogDamaged as error:
        logger.error("%s", error, extra={"action": "log_damaged"})
        followed.process.offset = size
        return None
    if len(records) > RECORDS_PER_TURN:
        records = records[:RECORDS_PER_TURN]
        offset = records[-1].end
    return Batch(followed, begin, records, offset, more=offset < size) if records else None
