"""The SQLite backend waits for other processes, at a statement and at the opening of a connection, and never for what waiting cannot cure."""

import sqlite3
import threading

import pytest

from huskies_site.sqlite import base


class Busy:
    """A call that is refused with a code until it was tried often enough."""

    def __init__(self, code: int, times: int) -> None:
        self.code, self.left = code, times

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = self.code
            raise error
        return "done"


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY])
def test_a_busy_database_is_asked_again(code):
    assert base.retried(sqlite3.connect(":memory:"), Busy(code, 3)) == "done"


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY_SNAPSHOT, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR])
def test_what_waiting_cannot_cure_is_told_at_once(code):
    call = Busy(code, 3)
    with pytest.raises(sqlite3.OperationalError):
        base.retried(sqlite3.connect(":memory:"), call)
    assert call.left == 2


def test_in_a_transaction_nothing_is_tried_again():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("BEGIN")
    with pytest.raises(sqlite3.OperationalError):
        base.retried(connection, Busy(sqlite3.SQLITE_BUSY, 1))


def test_a_connection_that_opens_while_another_has_the_database_to_itself_waits(tmp_path):
    path = tmp_path / "a.sqlite3"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN EXCLUSIVE")
    wrapper = base.DatabaseWrapper(
        {
            "NAME": str(path), "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL", "timeout": 0}, "TIME_ZONE": None,
            "CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False, "AUTOCOMMIT": True, "ATOMIC_REQUESTS": False,
        }
    )  # fmt: skip
    threading.Timer(0.05, lambda: other.execute("COMMIT")).start()
    opened = wrapper.get_new_connection(wrapper.get_connection_params())
    assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    opened.close()
    other.close()
