"""Django's `migrate`, with each migration's record in the transaction of its changes.

Django writes the record after the commit when a migration has deferred SQL: killed in between, the next start would make the tables again
and fail for ever.
"""

from __future__ import annotations

from typing import Any

from django.core.management.commands import migrate
from django.db import transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.migration import Migration


class WholeExecutor(MigrationExecutor):
    def apply_migration(self, state: Any, migration: Migration, *more: Any, **options: Any) -> Any:
        if not migration.atomic:
            return super().apply_migration(state, migration, *more, **options)
        # SQLite changes tables with its foreign keys off, and that cannot be switched inside a transaction.
        with self.connection.constraint_checks_disabled(), transaction.atomic(using=self.connection.alias):
            return super().apply_migration(state, migration, *more, **options)


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        migrate.MigrationExecutor = WholeExecutor  # type: ignore[attr-defined]
        super().handle(*args, **options)
