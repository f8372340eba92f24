"""What was spent, by whom and on what: sums of Spend, which budgets count too, so that no two pages can differ.

Every question is one query over the rows of its days, and one for each kind of name in the answer, however many rows there are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet, Sum

from agents.models import Session, Spend
from agents.services.spending import COLUMNS
from pipeline.exceptions import BadInput
from pipeline.models import Project, Story
from pipeline.texts import storable

BY: dict[str, tuple[str, ...]] = {
    "day": ("day",),
    "project": ("project_id",),
    "story": ("story_id",),
    "session": ("session_id",),
    "agent": ("project_id", "agent"),
    "model": ("model",),
    "person": ("user_id",),
}
"""What one can sum by -> the columns of Spend that tell two of them apart."""
NEXT = {
    "day": "session",
    "project": "story",
    "story": "session",
    "agent": "session",
    "model": "agent",
    "person": "story",
}
"""What the sums of one are looked into by."""
PERIODS = {"today": 1, "week": 7, "month": 30, "all": 0}
"""Name of a period -> how many days (UTC), today included; 0 = every day."""
LINES = 500
"""On a page; a file and a command have all."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What begins a cell that a spreadsheet would calculate."""


@dataclass(frozen=True, slots=True)
class Line:
    """Sums of one day, project, story, session, agent, model or person. `only`: the filter that leads to its parts, {} where there is none.

    `tokens`: all kinds together; `thinking_tokens` are part of the output; `unpriced_usd`: what of it models without a price were counted as.
    """

    name: str
    only: Mapping[str, str]
    usd: Decimal = Decimal(0)
    unpriced_usd: Decimal = Decimal(0)
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    thinking_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: sums by what, of which days (both included, None = without end), of which project, and only of what (names of BY -> value)."""

    by: str
    since: date | None = None
    until: date | None = None
    project: Project | None = None
    only: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> QuerySet[Spend]:
        rows = Spend.objects.all()
        if self.project is not None:
            rows = rows.filter(project=self.project)
        if self.since is not None:
            rows = rows.filter(day__gte=self.since)
        if self.until is not None:
            rows = rows.filter(day__lte=self.until)
        for name, value in self.only.items():
            rows = rows.filter(only(name, value))
        return rows


def today(now: datetime) -> date:
    return now.astimezone(UTC).date()


def since(period: str, now: datetime) -> date | None:
    """The first day of a period that ends today. Raises BadInput."""
    if period not in PERIODS:
        raise BadInput(f"{period[:50]!r} is no period; there are {', '.join(PERIODS)}.")
    days = PERIODS[period]
    return today(now) - timedelta(days=days - 1) if days else None


def by_of(text: str) -> str:
    if text not in BY:
        raise BadInput(f"Nothing is summed by {text[:50]!r}; there are {', '.join(BY)}.")
    return text


def only(name: str, value: str) -> Q:
    """The rows of one day, project and so on, as `Line.only` names them: an id, a day in ISO 8601, PROJECT-ID/AGENT, or a model. Raises BadInput."""
    column, told = BY[by_of(name)][-1], storable(value, name)
    if name == "agent":
        project, _, agent = told.partition("/")
        return Q(project_id=_id(name, project) if project else None, agent=agent)
    if name == "model":
        return Q(model=told)
    if name == "day":
        try:
            return Q(day=date.fromisoformat(told))
        except ValueError:
            raise BadInput(f"{told[:50]!r} is no day; write it as 2026-11-25.") from None
    return Q(**{column: _id(name, told)})


def _id(name: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise BadInput(f"{text[:50]!r} is no number of a {name}.")
    return int(text)


def lines(asked: Asked, most: int | None = None) -> list[Line]:
    """The sums, the dearest first (days: the newest first); at most so many."""
    columns = BY[asked.by]
    sums: dict[str, Any] = {f"{name}_sum": Sum(name) for name in COLUMNS}
    grouped: Any = asked.rows().order_by().values(*columns).annotate(**sums)
    order = ("-day",) if asked.by == "day" else ("-usd_sum", "-tokens_sum", *columns)
    found = list(grouped.order_by(*order)[:most])
    names = names_of(asked.by, found)
    return [_line(names[key], _only_of(asked.by, key), row) for row in found for key in [_key(columns, row)]]


def total(asked: Asked) -> Line:
    """Everything that is asked about, together."""
    sums: dict[str, Any] = {f"{name}_sum": Sum(name) for name in COLUMNS}
    return _line("in all", {}, asked.rows().aggregate(**sums))


def periods(asked: Asked, now: datetime) -> dict[str, Line]:
    """What was spent in each of PERIODS, in one query; the days that are asked for do not matter."""
    starts = {name: since(name, now) for name in PERIODS}
    sums: dict[str, Any] = {
        f"{period}_{column}": Sum(column, filter=Q(day__gte=start) if start else None)
        for period, start in starts.items()
        for column in ("usd", "tokens")
    }
    found = Asked(asked.by, project=asked.project, only=asked.only).rows().aggregate(**sums)
    return {
        period: Line(period, {}, found[f"{period}_usd"] or Decimal(0), tokens=found[f"{period}_tokens"] or 0)
        for period in PERIODS
    }


def _line(name: str, part: Mapping[str, str], row: Mapping[str, Any]) -> Line:
    sums: dict[str, Any] = {column: row[f"{column}_sum"] or 0 for column in COLUMNS}
    return Line(name, part, **sums)


def _key(columns: Sequence[str], row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in columns)


def _only_of(by: str, key: tuple[Any, ...]) -> dict[str, str]:
    if key[-1] is None:
        return {}
    if by == "agent":
        return {by: f"{key[0] or ''}/{key[1]}"}
    return {by: str(key[-1])}


GONE = {
    "story": "of deleted stories",
    "session": "of deleted stories",
    "project": "of deleted projects",
    "person": "of nobody in particular",
}


def names_of(by: str, rows: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, ...], str]:
    """The keys of the rows as people name them."""
    keys = [_key(BY[by], row) for row in rows]
    if by in ("day", "model"):
        return {key: str(key[0]) or "a model that was not named" for key in keys}
    known = dict(NAMERS[by]({key[0] for key in keys} - {None}))
    if by == "agent":
        return {key: f"{known.get(key[0], 'a deleted project')}/{key[1]}" for key in keys}
    return {key: GONE[by] if key[0] is None else known.get(key[0], f"{by} {key[0]}") for key in keys}


def _projects(ids: set[Any]) -> Iterable[tuple[int, str]]:
    return Project.objects.filter(pk__in=ids).values_list("pk", "name")


def _stories(ids: set[Any]) -> Iterable[tuple[int, str]]:
    rows = Story.objects.filter(pk__in=ids).values_list("pk", "project__name", "number", "title")
    return [(pk, f"{project}/{number} {title}") for pk, project, number, title in rows]


def _sessions(ids: set[Any]) -> Iterable[tuple[int, str]]:
    rows = Session.objects.filter(pk__in=ids).values_list(
        "pk", "story__project__name", "story__number", "agent__name"
    )
    return [(pk, f"session {pk} of {agent} on {project}/{number}") for pk, project, number, agent in rows]


def _people(ids: set[Any]) -> Iterable[tuple[int, str]]:
    return User.objects.filter(pk__in=ids).values_list("pk", "username")


NAMERS = {
    "project": _projects,
    "agent": _projects,
    "story": _stories,
    "session": _sessions,
    "person": _people,
}


# -- for spreadsheets ------------------------------------------------------------------------------------------------


def as_csv(by: str, found: Iterable[Line]) -> str:
    """One line for each, with a head. A name never becomes a formula: spreadsheets calculate what begins like one."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_MINIMAL)
    writer.writerow([by, *COLUMNS])
    for line in found:
        writer.writerow(
            [
                cell(line.name),
                *(f"{value:.6f}" if isinstance(value, Decimal) else value for value in _values(line)),
            ]
        )
    return out.getvalue()


def _values(line: Line) -> list[Any]:
    return [getattr(line, name) for name in COLUMNS]


def cell(text: str) -> str:
    """Text as a cell: with an apostrophe before what a spreadsheet would take for a formula, control characters shown."""
    plain = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return f"'{plain}" if text.startswith(FORMULA) or plain.lstrip().startswith(FORMULA) else plain


def shape(line: Line) -> dict[str, Any]:
    """As JSON: dollars as decimal strings, counts as numbers."""
    return {"name": line.name, **{name: _shown(getattr(line, name)) for name in COLUMNS}}


def _shown(value: Any) -> Any:
    return f"{value:.6f}" if isinstance(value, Decimal) else value
