"""Commits that need not outlast a power cut, because what they tell of is over with it: a launch, the lines of a log, the queue's own marks.

They outlast the death of any process, and later commits never come before them: only the wait for the disk is left out (2 to 6 ms each).
Whatever promises something (a claim, an end, a verdict, a landing, a person's act) is written outside of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import Error, transaction

OFF = {"sqlite": "PRAGMA synchronous=NORMAL", "postgresql": "SET synchronous_commit = off"}
ON = {"sqlite": "PRAGMA synchronous=FULL", "postgresql": "SET synchronous_commit = on"}


@contextmanager
def unsynced() -> Iterator[None]:
    """For the commits of this thread until the end of the block; of no effect within a transaction."""
    connection = transaction.get_connection()
    if connection.in_atomic_block:
        yield
        return
    _say(OFF)
    try:
        yield
    finally:
        try:
            _say(ON)
        except Error:
            connection.close()  # the next one begins as all do


def stay_unsynced() -> None:
    """For all commits to come of this thread's connection."""
    _say(OFF)


def _say(words: dict[str, str]) -> None:
    connection = transaction.get_connection()
    with connection.cursor() as cursor:
        cursor.execute(words[connection.vendor])
