"""The supervisor and the workers keep their connection to the database, and get another when it was cut."""

from __future__ import annotations

import psycopg
import pytest
from django.db import connection

from huskies_site.stack import parts
from pipeline import supervisor as supervising
from pipeline.supervisor import Supervisor
from tests.racing import database_url

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    parts.keep_connections()
    connection.close()
    return Supervisor(tick_seconds=60)


def test_it_is_the_same_from_turn_to_turn(supervisor: Supervisor) -> None:
    supervisor.step()
    first = connection.connection
    supervisor.step()
    assert first is not None and connection.connection is first


@pytest.mark.on_postgresql
def test_one_that_was_cut_is_replaced_in_the_next_turn(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising.time, "sleep", lambda _: None)
    supervisor.step()
    first = connection.connection.info.backend_pid
    with psycopg.connect(database_url(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [first])
    supervisor._due.clear()
    supervisor.step()  # meets the cut connection, says so and goes on
    supervisor._due.clear()
    supervisor.step()
    assert connection.is_usable() and connection.connection.info.backend_pid != first
