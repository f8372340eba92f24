"""Statements of the supervisor's turns, without the ORM, whose objects and statements cost six times as much as the rows (measured on SQLite)."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from django.db import connection, models

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@functools.cache
def _statement(model: type[models.Model], columns: Sequence[str]) -> str:
    quote = connection.ops.quote_name
    fields: list[Any] = [model._meta.get_field(name) for name in columns]
    names = ", ".join(quote(str(field.column)) for field in fields)
    marks = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES ({marks})"  # noqa: S608 - names of our own models


def insert(model: type[models.Model], columns: tuple[str, ...], rows: Iterable[Sequence[Any]]) -> None:
    """Rows with values as the database takes them (see `moments`), in the caller's transaction. Raises IntegrityError."""
    found = list(rows)
    if found:
        with connection.cursor() as cursor:
            cursor.executemany(_statement(model, columns), found)


def add_up(
    model: type[models.Model],
    where: Mapping[str, Any],
    sums: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
) -> int:
    """Add to some columns of the rows with these values, and set others; how many rows these are."""
    values = values or {}
    sql = _addition(model, tuple(where), tuple(sums), tuple(values))
    with connection.cursor() as cursor:
        cursor.execute(sql, [*sums.values(), *values.values(), *where.values()])
        return int(cursor.rowcount)


@functools.cache
def _addition(
    model: type[models.Model], where: Sequence[str], sums: Sequence[str], values: Sequence[str]
) -> str:
    columns: dict[str, str] = {
        name: connection.ops.quote_name(str(model._meta.get_field(name).column))  # type: ignore[union-attr]
        for name in (*where, *sums, *values)
    }
    table = connection.ops.quote_name(model._meta.db_table)
    changes = [f"{columns[name]} = {columns[name]} + %s" for name in sums]
    changes += [f"{columns[name]} = %s" for name in values]
    found = " AND ".join(f"{columns[name]} = %s" for name in where)
    return f"UPDATE {table} SET {', '.join(changes)} WHERE {found}"  # noqa: S608 - names of our own models


def moments(times: Iterable[int]) -> list[Any]:
    """Microseconds since 1970 as the database takes a time."""
    if connection.vendor != "sqlite":
        return [EPOCH + timedelta(microseconds=at) for at in times]
    # What Django's adapter comes to, twenty times as fast: of many in one second only the first is a datetime.
    found, last, text = [], -1, ""
    for at in times:
        second, rest = divmod(at, 1_000_000)
        if second != last:
            last, text = second, str(EPOCH + timedelta(seconds=second))[:-6]
        found.append(f"{text}.{rest:06d}" if rest else text)
    return found


def as_json(value: Any) -> bytes:
    """JSON without spaces, in ASCII or UTF-8."""
    try:
        return orjson.dumps(value)
    except TypeError:  # what only Python's own module writes, such as a number of more than 64 bits
        return json.dumps(value).encode()
