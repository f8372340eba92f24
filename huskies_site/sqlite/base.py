"""Django's SQLite backend with a constant short retry instead of SQLite's built-in busy back-off.

Measured with 8 writing processes: worst wait 1,832 -> 80 ms, share of the slowest 0.32 -> 0.72, 0 errors (rules.md, Database). A writer that has
waited for 10 ms looks ten times as often, and so comes before those that have just come (4 processes that start stories without a pause: share
of the slowest 0.74 -> 0.9). Retrying only BEGIN would miss updates in autocommit mode, so every statement outside a transaction is retried.
Inside a transaction nothing can be busy (BEGIN IMMEDIATE holds the write lock), and SQLITE_BUSY_SNAPSHOT is never retried: waiting cannot cure it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.db.backends.sqlite3 import base

RETRY_SECONDS = 0.001
IMPATIENT_SECONDS = 0.01
IMPATIENT_RETRY_SECONDS = 0.0001
GIVE_UP_SECONDS = 20.0
T = TypeVar("T")


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Whether waiting may cure it: SQLITE_BUSY and its kinds (another process recovers the log after a crash), but for a stale snapshot."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT


def retried(connection: sqlite3.Connection, call: Callable[[], T]) -> T:
    """Run the call; while SQLite says busy and no transaction is open, again each millisecond, later more often, for at most 20 s."""
    deadline = None
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or connection.in_transaction:
                raise
            now = time.monotonic()
            deadline = deadline or now + GIVE_UP_SECONDS
            if now > deadline:
                raise
            waited = now - (deadline - GIVE_UP_SECONDS)
            time.sleep(RETRY_SECONDS if waited < IMPATIENT_SECONDS else IMPATIENT_RETRY_SECONDS)


class Cursor(base.SQLiteCursorWrapper):
    def execute(self, query: str, params: Any = None) -> Any:
        run = super().execute
        return retried(self.connection, lambda: run(query, params))

    def executemany(self, query: str, param_list: Any) -> Any:
        if self.connection.in_transaction:
            return super().executemany(query, param_list)
        rows, run = list(param_list), super().executemany
        return retried(self.connection, lambda: run(query, rows))


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: Any) -> Any:
        """Opening runs the PRAGMAs of `init_command`, which can meet a busy database too."""
        connect, deadline = super().get_new_connection, time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                return connect(conn_params)
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    def create_cursor(self, name: Any = None) -> Any:
        return self.connection.cursor(factory=Cursor)
