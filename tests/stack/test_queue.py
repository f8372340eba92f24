"""The queue's own door to the database: a task is handed to one taker, again when it was not done in time, and not once it was."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from django_q.conf import Conf
from django_q.models import OrmQ

from pipeline.broker import WakingBroker
from pipeline.unsynced import unsynced

pytestmark = pytest.mark.django_db(transaction=True)


def broker() -> WakingBroker:
    return WakingBroker()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conf, "POLL", 0)


def test_a_task_is_given_to_one_taker_until_its_time_is_over() -> None:
    first, second = broker(), broker()
    number = first.enqueue("a task")
    assert first.dequeue() == [(number, "a task")]
    assert second.dequeue() is None and first.dequeue() is None
    OrmQ.objects.update(lock=timezone.now() - timedelta(seconds=1))
    assert second.dequeue() == [(number, "a task")], "whoever took it did not come back"


def test_what_is_done_is_gone() -> None:
    queue = broker()
    numbers = [queue.enqueue(f"task {n}") for n in range(2)]
    queue.acknowledge(numbers[0])
    assert queue.dequeue() == [(numbers[1], "task 1")]
    queue.acknowledge(numbers[1])
    assert not OrmQ.objects.exists()


def synced() -> bool:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            return bool(cursor.execute("PRAGMA synchronous").fetchone()[0] == 2)
        cursor.execute("SHOW synchronous_commit")
        return bool(cursor.fetchone()[0] == "on")


def test_only_what_may_be_lost_in_a_power_cut_is_not_waited_for() -> None:
    assert synced()
    with unsynced():
        assert not synced()
    assert synced()
    with pytest.raises(ZeroDivisionError), unsynced():
        1 / 0  # noqa: B018
    assert synced(), "also after an error"


def test_a_connection_that_broke_meanwhile_is_not_used_on() -> None:
    with unsynced():
        connection.connection.close()
    assert synced()


def test_the_queue_marks_are_not_waited_for_and_what_is_put_in_is() -> None:
    queue = broker()
    queue.enqueue("a task")
    assert synced(), "it commits with the rows that want it"
    queue.dequeue()
    assert not synced()
    connection.close()
