"""Which database the run is on, where a PostgreSQL server answers, and what its databases are called.

HUSKIES_TEST_DATABASE is sqlite (the default) or postgresql. HUSKIES_TEST_POSTGRESQL names the server by the
URL of a database that exists on it; without it the usual local ones are tried.
"""

import getpass
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

PREFIX = "test_huskies_"


class UnknownDatabase(Exception):
    """HUSKIES_TEST_DATABASE names neither sqlite nor postgresql."""


def chosen() -> str:
    """The database that Django's tests run on: "sqlite" or "postgresql"."""
    name = os.environ.get("HUSKIES_TEST_DATABASE", "sqlite")
    if name not in ("sqlite", "postgresql"):
        raise UnknownDatabase(
            f"The tests cannot run on HUSKIES_TEST_DATABASE={name}: set it to sqlite or to postgresql."
        )
    return name


@cache
def probe_postgresql() -> tuple[str | None, str | None]:
    """The URL of a server where databases may be made, or None and what stands in the way; asked once."""
    if named := os.environ.get("HUSKIES_TEST_POSTGRESQL"):
        candidates = [named]
    else:
        users = dict.fromkeys(["postgres", getpass.getuser()])
        candidates = [
            "postgresql:///postgres",
            *(f"postgresql://{user}@127.0.0.1:5432/postgres" for user in users),
        ]
    obstacles = []
    for url in candidates:
        try:
            with psycopg.connect(url, connect_timeout=3) as connection:
                row = connection.execute(
                    "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
                ).fetchone()
        except psycopg.Error as error:
            obstacles.append(f"{without_password(url)}: {str(error).strip().splitlines()[0]}")
            continue
        if row and row[0]:
            return url, None
        obstacles.append(f"{without_password(url)}: its user may not make databases")
    return None, "no server answers (" + "; ".join(obstacles) + ")"


def postgresql_obstacle() -> str | None:
    return probe_postgresql()[1]


def postgresql_url(database: str | None = None) -> str:
    """The URL of the server that answered, with another database's name in it if one is given.

    Raises LookupError when none answers; tests that may meet that carry the marker needs_postgresql.
    """
    url, obstacle = probe_postgresql()
    if url is None:
        raise LookupError(f"PostgreSQL was asked for, and {obstacle}.")
    if database is None:
        return url
    parts = urlsplit(url)
    # Not urlunsplit: it drops the slashes of an empty host, which libpq needs.
    return f"{parts.scheme}://{parts.netloc}/{database}" + (f"?{parts.query}" if parts.query else "")


def run_database() -> str:
    """The name of this run's PostgreSQL test database, before pytest-xdist adds each worker's suffix.

    It carries the process id of the run, so that two runs on one server do not meet, and so that
    `drop_leftovers` can tell a killed run's databases.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ["HUSKIES_TEST_RUN"] = str(os.getpid())
    return PREFIX + os.environ["HUSKIES_TEST_RUN"]


@contextmanager
def own_database() -> Iterator[str]:
    """The URL of an empty database for a server that a test starts: "" (SQLite in its data folder), or one made on PostgreSQL."""
    if chosen() == "sqlite":
        yield ""
        return
    name = f"{run_database()}_{secrets.token_hex(4)}"
    with psycopg.connect(postgresql_url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield postgresql_url(name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def drop_leftovers() -> None:
    """Drop the databases of killed runs: the process id in the name is gone and nobody is connected."""
    with psycopg.connect(postgresql_url(), autocommit=True) as connection:
        names = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [PREFIX])
        for (name,) in names.fetchall():
            pid = name.removeprefix(PREFIX).split("_")[0]
            if not pid.isdigit() or Path("/proc", pid).exists():
                continue
            try:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
            except psycopg.errors.ObjectInUse:
                continue  # a run on another machine has that process id


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1]))
