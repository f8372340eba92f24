"""django-q2's ORM broker, woken by the database instead of a fixed sleep.

SQLite: `PRAGMA data_version` changes when another connection commits (5 us a look, each 5 ms). PostgreSQL: LISTEN on our channel. The
poll of django-q2 stays as the upper bound, so a missed wake-up costs at most that.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, transaction
from django.utils import timezone
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.models import OrmQ

from pipeline.prepared import Select, Update, insert
from pipeline.unsynced import stay_unsynced

LOOK_SECONDS = 0.005
NEXT: Select[tuple[int, str, datetime]] = Select(
    lambda key, now: OrmQ.objects.filter(key=key, lock__lt=now).values_list("pk", "payload", "lock")[:1],
    str,
    datetime,
)
TAKE = Update(
    lambda pk, seen, until: (OrmQ.objects.filter(pk=pk, lock=seen), {"lock": until}), int, datetime, datetime
)
DELETE = f"DELETE FROM {OrmQ._meta.db_table} WHERE id = %s"  # noqa: S608
CHANNEL = "huskies_queue"


class WakingBroker(ORM):  # type: ignore[misc]
    _seen: Any = None
    _listening: Any = None
    _relaxed: Any = None

    @staticmethod
    def get_connection(list_key: str | None = None) -> Any:
        # The pusher keeps its connection: closing it at each look would hide `data_version`.
        return OrmQ.objects.using(Conf.ORM)

    def enqueue(self, task: Any) -> Any:
        row = insert(OrmQ(key=self.list_key or Conf.CLUSTER_NAME, payload=task, lock=timezone.now()))
        connection = connections[Conf.ORM]
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])
        return row.pk

    def dequeue(self) -> Any:
        connection = connections[Conf.ORM]
        if transaction.get_autocommit(using=Conf.ORM):
            if connection.errors_occurred:
                connection.close()
            connection.ensure_connection()
            self._relax(connection)
        before, now = self._version(connection), timezone.now()
        for pk, payload, lock in NEXT(self.list_key, now):
            if TAKE(pk, lock, now + timedelta(seconds=Conf.RETRY)):
                return [(pk, payload)]
            return None  # another cluster was faster
        self._wait(connection, before, Conf.POLL)
        return None

    def delete(self, task_id: int) -> None:
        connection = connections[Conf.ORM]
        self._relax(connection)
        with connection.cursor() as cursor:
            cursor.execute(DELETE, [task_id])

    def _relax(self, connection: Any) -> None:
        """What the queue has done it may do again: its own marks, on the connections of its pusher and its monitor."""
        connection.ensure_connection()
        if self._relaxed is not connection.connection:
            stay_unsynced()
            self._relaxed = connection.connection

    def _version(self, connection: Any) -> Any:
        if connection.vendor != "sqlite":
            return None
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA data_version")
            return cursor.fetchone()[0]

    def _wait(self, connection: Any, before: Any, seconds: float) -> None:
        if connection.vendor == "postgresql":
            raw = connection.connection
            if self._listening is not raw:
                with connection.cursor() as cursor:
                    cursor.execute(f"LISTEN {CHANNEL}")
                self._listening = raw
                return  # something may have been queued before we listened: look once more
            for _ in raw.notifies(timeout=seconds, stop_after=1):
                return
            return
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
            if self._version(connection) != before:
                return
