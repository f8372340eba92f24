"""The numbered events of a process's log: the one door through which they are written and read.

They lie many to a row (`LogPart`), as one JSON text: a row of its own for each costs more than all else that is done with it.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from django.db import IntegrityError
from django.db.models import F, Max, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from pipeline.inserting import EPOCH, as_json, insert
from pipeline.models import LogPart, Process, Story
from pipeline.prepared import Select

MOST_EVENTS = 200
"""Of one row."""
PARTS_AT_ONCE = 32
"""Rows that a reader has in memory."""
PARTS_DELETED = 100
COLUMNS = ("process", "first_seq", "last_seq", "events")


class NewEvent(NamedTuple):
    """An event that has no number yet; `at` in microseconds since 1970."""

    kind: str
    body: dict[str, Any]
    at: int


class Encoded(list[NewEvent]):
    """Events whose rows' JSON is made already, by `encoded`: it is stored as it is."""

    def __init__(self, new: Iterable[NewEvent], texts: list[bytes]) -> None:
        super().__init__(new)
        self.texts = texts


class LogEvent(NamedTuple):
    """What people read. `seq` is dense: 1, 2, 3 ... from the log's single writer."""

    seq: int
    kind: str
    body: dict[str, Any]
    at: datetime


def moment(at: int) -> datetime:
    """Of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=at)


def microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


# -- written -------------------------------------------------------------------------------------------------------


def encoded(new: Sequence[NewEvent]) -> list[bytes]:
    """The JSON of the rows for these events."""
    plain = list(map(tuple, new))  # orjson takes no named ones
    return [as_json(plain[begin : begin + MOST_EVENTS]) for begin in range(0, len(plain), MOST_EVENTS)]


def append(process_id: int, first_seq: int, new: Sequence[NewEvent]) -> None:
    """Number them from `first_seq` on, inside the caller's transaction. Raises IntegrityError when a number is taken.

    Whoever appends has moved the process's `last_seq` or `offset` by compare-and-set before, in the same transaction.
    """
    if not new:
        return
    newest = TAKEN.first(process_id)
    if newest is not None and newest.last_seq >= first_seq:
        raise IntegrityError(
            f"Event {first_seq} of process {process_id} is there already; the last is {newest.last_seq}."
        )
    texts = new.texts if isinstance(new, Encoded) else encoded(new)
    rows = []
    for number, text in enumerate(texts):
        begin = number * MOST_EVENTS
        end = min(begin + MOST_EVENTS, len(new))
        rows.append((process_id, first_seq + begin, first_seq + end - 1, text.decode()))
    insert(LogPart, COLUMNS, rows)


TAKEN: Select[LogPart] = Select(
    lambda process: (
        LogPart.objects.filter(process=process).order_by("-first_seq").only("process", "last_seq")[:1]
    ),
    int,
)


# -- read ----------------------------------------------------------------------------------------------------------


def since(process_id: int, seq: int = 1, kinds: Container[str] | None = None) -> Iterator[LogEvent]:
    """The events from number `seq` on, of all kinds or of these, read in batches: a long log never stands whole in memory."""
    parts = LogPart.objects.filter(process=process_id).order_by("first_seq")
    begin = parts.filter(first_seq__lte=seq).order_by("-first_seq").values("first_seq")[:1]
    rows = parts.filter(first_seq__gte=Coalesce(Subquery(begin), 0))
    while batch := list(rows[:PARTS_AT_ONCE]):
        for part in batch:
            for event in _events(part):
                if event.seq >= seq and (kinds is None or event.kind in kinds):
                    yield event
        if len(batch) < PARTS_AT_ONCE:
            return
        rows = parts.filter(first_seq__gt=batch[-1].last_seq)


def backwards(process_id: int, kinds: Container[str] | None = None) -> Iterator[LogEvent]:
    """The events from the last one to the first, of all kinds or of these, read in batches."""
    rows = parts = LogPart.objects.filter(process=process_id).order_by("-first_seq")
    while batch := list(rows[:PARTS_AT_ONCE]):
        for part in batch:
            yield from (event for event in reversed(_events(part)) if kinds is None or event.kind in kinds)
        if len(batch) < PARTS_AT_ONCE:
            return
        rows = parts.filter(first_seq__lt=batch[-1].first_seq)


def last(process_id: int, most: int, kinds: Container[str] | None = None) -> list[LogEvent]:
    """The last events, of all kinds or of these, in their order."""
    return list(islice(backwards(process_id, kinds), most))[::-1]


def _events(part: LogPart) -> list[LogEvent]:
    # Python's own module: orjson would make a float of a number of more than 64 bits.
    found = json.loads(part.events)
    return [
        LogEvent(seq, kind, body, moment(at)) for seq, (kind, body, at) in enumerate(found, part.first_seq)
    ]


# -- counted and deleted -------------------------------------------------------------------------------------------


def holed(processes: QuerySet[Process]) -> Iterator[tuple[str, int, int, int]]:
    """(key, how many events there are, the last one's number, the number that the process names) of those that do not have 1 to `last_seq`."""
    found = processes.annotate(
        count=Coalesce(Sum(F("log_parts__last_seq") - F("log_parts__first_seq") + 1), 0),
        last=Coalesce(Max("log_parts__last_seq"), 0),
    )
    yield from found.exclude(count=F("last_seq"), last=F("last_seq")).values_list(
        "key", "count", "last", "last_seq"
    )


def delete_of(story: Story) -> None:
    """The logs of a story's processes may be long: a transaction for each batch of rows, so that others can write in between."""
    parts = LogPart.objects.filter(process__story=story).order_by("pk")
    while keys := list(parts.values_list("pk", flat=True)[:PARTS_DELETED]):
        LogPart.objects.filter(pk__in=keys).delete()
