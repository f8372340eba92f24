"""Statements that every session passes through, whose SQL is made once: those of its claim, its launch, its end, and of the queue between them.

The ORM writes a statement, and making its SQL costs it 0.2 to 0.5 ms each time: ten times what SQLite needs to run it. A claim is some twenty
of them under the one lock that all claims wait for, a session's whole way some eighty, so they are made once per connection and only bound
after that. Everywhere else the ORM is used as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from django.db import models, transaction
from django.db.models.query import ModelIterable, get_related_populators
from django.db.models.signals import post_save, pre_save
from django.db.models.sql import InsertQuery, UpdateQuery

Row = TypeVar("Row")
Saved = TypeVar("Saved", bound=models.Model)
Build = Callable[..., models.QuerySet[Any]]

Value = int | str | datetime
Kind = type[int] | type[str] | type[datetime]
MARKS: dict[Kind, Callable[[int], Value]] = {
    int: lambda n: 2_000_000_000 + n,
    str: lambda n: f"\x01{n}",
    datetime: lambda n: datetime(9000 + n, 1, 1, tzinfo=UTC),
}
"""What stands for the values to come while the SQL is made; no row of ours has such a one."""


class _Statement(ABC):
    """SQL made once per connection, with the places of its values."""

    def __init__(self, *kinds: Kind) -> None:
        self.marks = [MARKS[kind](n) for n, kind in enumerate(kinds)]

    def of(self, connection: Any) -> Any:
        """What `make` returned for this connection; each thread has a connection of its own."""
        plans: dict[Any, Any] = connection.__dict__.setdefault("huskies_prepared", {})
        plan = plans.get(self)
        if plan is None:
            plan = plans[self] = self.make(connection)
        return plan

    @abstractmethod
    def make(self, connection: Any) -> Any:
        """The prepared form for one connection; made once and kept."""

    def places(self, params: tuple[Any, ...], connection: Any) -> list[tuple[int, int]]:
        """(place among the parameters, which value) of each mark."""
        marks = [_as_param(mark, connection) for mark in self.marks]
        found = [(place, marks.index(param)) for place, param in enumerate(params) if param in marks]
        assert {which for _, which in found} == set(range(len(self.marks))), "a value got lost in the SQL"  # noqa: S101
        return found


def _as_param(value: Value, connection: Any) -> Any:
    return connection.ops.adapt_datetimefield_value(value) if isinstance(value, datetime) else value


class Select(_Statement, Generic[Row]):
    """A query: `Select(lambda pk: Story.objects.filter(pk=pk), int)`, called with the values; its rows as the ORM gives them."""

    def __init__(self, build: Build, *kinds: Kind) -> None:
        super().__init__(*kinds)
        self.build = build

    def __call__(self, *values: Value) -> list[Row]:
        connection = transaction.get_connection()
        sql, params, places, read = self.of(connection)
        bound = list(params)
        for place, which in places:
            bound[place] = _as_param(values[which], connection)
        with connection.cursor() as cursor:
            cursor.execute(sql, bound)
            rows = cursor.fetchall()
        return read(rows) if rows else []

    def first(self, *values: Value) -> Row | None:
        """The first row; the query should say so itself by a slice."""
        rows = self(*values)
        return rows[0] if rows else None

    def make(self, connection: Any) -> Any:
        queryset = self.build(*self.marks)
        compiler = queryset.query.get_compiler(connection=connection)
        sql, params = compiler.as_sql()
        of_models = issubclass(queryset._iterable_class, ModelIterable)
        read = _models(compiler) if of_models else _tuples(compiler)
        return sql, params, self.places(params, connection), read


def _tuples(compiler: Any) -> Callable[[list[Any]], list[Any]]:
    converters = compiler.get_converters([column[0] for column in compiler.select])
    if not converters:
        return lambda rows: rows
    return lambda rows: [tuple(row) for row in compiler.apply_converters(rows, converters)]


def _models(compiler: Any) -> Callable[[list[Any]], list[Any]]:
    """As django.db.models.query.ModelIterable reads them, without annotations."""
    assert not compiler.annotation_col_map, "annotations are not read here"  # noqa: S101
    select, info, alias = compiler.select, compiler.klass_info, compiler.connection.alias
    model, own = info["model"], info["select_fields"]
    begin, end = own[0], own[-1] + 1
    names = [column[0].target.attname for column in select[begin:end]]
    related = get_related_populators(info, select, alias)  # type: ignore[call-arg]  # the stubs are of a later Django
    converters = compiler.get_converters([column[0] for column in select])

    def read(rows: list[Any]) -> list[Any]:
        found = []
        for row in compiler.apply_converters(rows, converters) if converters else rows:
            one = model.from_db(alias, names, row[begin:end])
            for populator in related:
                populator.populate(row, one)
            found.append(one)
        return found

    return read


class Update(_Statement):
    """`Update(lambda pk, text: (Story.objects.filter(pk=pk), {"waiting_for": text}), int, str)`; returns how many rows were changed."""

    def __init__(
        self,
        build: Callable[..., tuple[models.QuerySet[Any], dict[str, Any]]],
        *kinds: Kind,
    ) -> None:
        super().__init__(*kinds)
        self.build = build

    def __call__(self, *values: Value) -> int:
        connection = transaction.get_connection()
        sql, params, places = self.of(connection)
        bound = list(params)
        for place, which in places:
            bound[place] = _as_param(values[which], connection)
        with connection.cursor() as cursor:
            cursor.execute(sql, bound)
            return int(cursor.rowcount)

    def make(self, connection: Any) -> Any:
        rows, values = self.build(*self.marks)
        query: Any = rows.query.chain(UpdateQuery)
        query.add_update_values(values)
        sql, params = query.get_compiler(connection=connection).as_sql()
        return sql, params, self.places(params, connection)


def insert(row: Saved) -> Saved:
    """Insert a new row and give it its number, as `save(force_insert=True)` does. For models whose saving nobody listens to."""
    return insert_all([row])[0]


def insert_all(rows: Sequence[Saved]) -> Sequence[Saved]:
    """The same for rows of one model, in one statement. Raises IntegrityError."""
    if not rows:
        return rows
    model = type(rows[0])
    listened = pre_save.has_listeners(model) or post_save.has_listeners(model)
    assert not listened, f"saving a {model.__name__} is listened to"  # noqa: S101
    connection = transaction.get_connection()
    plans: dict[Any, Any] = connection.__dict__.setdefault("huskies_prepared", {})
    plan = plans.get((model, len(rows)))
    if plan is None:
        plan = plans[model, len(rows)] = _insertion(rows, connection)
    sql, fields = plan
    with connection.cursor() as cursor:
        cursor.execute(
            sql,
            [
                getattr(row, field.attname)
                if plain
                else field.get_db_prep_save(field.pre_save(row, add=True), connection)
                for row in rows
                for field, plain in fields
            ],
        )
        for row, (number,) in zip(rows, cursor.fetchall(), strict=True):
            row.pk = number
            row._state.adding, row._state.db = False, connection.alias
    return rows


PLAIN = (models.CharField, models.TextField, models.BooleanField, models.IntegerField, models.ForeignKey)
"""Fields whose values go to the database as they are: asking the field costs ten times as much as the value."""


def _insertion(rows: Sequence[models.Model], connection: Any) -> tuple[str, list[tuple[Any, bool]]]:
    meta = type(rows[0])._meta
    fields = [field for field in meta.local_concrete_fields if field is not meta.pk]
    query = InsertQuery(type(rows[0]))
    query.insert_values(fields, [rows[0]])
    compiler = query.get_compiler(connection=connection)
    compiler.returning_fields = [meta.pk]
    [(sql, _)] = compiler.as_sql()
    # Of several the compiler makes what suits the backend, with as many parameters as it likes.
    values = f"({', '.join(['%s'] * len(fields))})"
    assert sql.count(values) == 1, f"the values are not where they were: {sql}"  # noqa: S101
    sql = sql.replace(values, ", ".join([values] * len(rows)))
    return sql, [(field, isinstance(field, PLAIN) and _is_djangos(field)) for field in fields]


def _is_djangos(field: Any) -> bool:
    return type(field).__module__.startswith("django.db.models.")
