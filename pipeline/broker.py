"""django-q2's ORM broker, woken by the database instead of a fixed sleep.

SQLite: `PRAGMA data_version` changes when another connection commits (5 us a look, each 5 ms). PostgreSQL: LISTEN on our channel. The
poll of django-q2 stays as the upper bound, so a missed wake-up costs at most that.
"""

from __future__ import annotations

import time
from typing import Any

from django.db import connections, transaction
from django.utils import timezone
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.models import OrmQ

from pipeline.prepared import insert

LOOK_SECONDS = 0.005
CHANNEL = "huskies_queue"


class WakingBroker(ORM):  # type: ignore[misc]
    _seen: Any = None
    _listening: Any = None

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
        poll, Conf.POLL = Conf.POLL, 0
        try:
            before = self._version(connection)
            found = super().dequeue()
        finally:
            Conf.POLL = poll
        if found is None:
            self._wait(connection, before, poll)
        return found

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
