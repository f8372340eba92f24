"""Django's SQLite backend with a constant short retry instead of SQLite's built-in busy back-off.

Measured with 8 writing processes: worst wait 1,832 -> 80 ms, share of the slowest 0.32 -> 0.72, 0 errors (rules.md, Database). A writer that has
waited for 10 ms looks three times as often, and so comes before those that have just come (4 processes that start stories without a pause: share
of the slowest 0.74 -> 0.9). Retrying only BEGIN would miss updates in autocommit mode, so every statement outside a transaction is retried.
Inside a transaction nothing can be busy (BEGIN IMMEDIATE holds the write lock), and SQLITE_BUSY_SNAPSHOT is never retried: waiting cannot cure it.
"""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.db.backends.sqlite3 import base

RETRY_SECONDS = 0.001
IMPATIENT_SECONDS = 0.01
IMPATIENT_RETRY_SECONDS = 0.0003
GIVE_UP_SECONDS = 20.0
LONG = 20_000  # characters of a statement that is not kept
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


@functools.lru_cache(maxsize=1024)
def with_question_marks(query: str) -> str:
    """Django's %s as SQLite's own; to look for them costs as much as to run a short statement."""
    return str(base.FORMAT_QMARK_REGEX.sub("?", query)).replace("%%", "%")


class Cursor(base.SQLiteCursorWrapper):
    def convert_query(self, query: Any, *, param_names: Any = None) -> str:
        if param_names is None and isinstance(query, str) and len(query) < LONG:
            return with_question_marks(query)
        return str(super().convert_query(query, param_names=param_names))

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
