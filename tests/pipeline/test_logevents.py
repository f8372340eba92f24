"""Events of a log come back as they were written, in any part, whatever rows they lie in; a number is given once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from pipeline import conf, logevents
from pipeline.doctor import rows
from pipeline.logevents import MOST_EVENTS, PARTS_AT_ONCE, Encoded, NewEvent
from pipeline.models import LogPart, Process

pytestmark = pytest.mark.django_db


@pytest.fixture
def process() -> Process:
    return Process.objects.create(key=conf.new_key(), kind="lines", host=conf.host(), state="running")


def numbered(first: int, count: int, kind: str = "line") -> list[NewEvent]:
    return [NewEvent(kind, {"n": n}, n) for n in range(first, first + count)]


def seqs(events: Any) -> list[int]:
    return [event.seq for event in events]


def test_every_reader_finds_its_events_wherever_rows_begin(process: Process) -> None:
    sizes, end = [1] * (PARTS_AT_ONCE + 3) + [MOST_EVENTS * 2 + 5, 3], 0
    for number, size in enumerate(sizes):
        logevents.append(process.pk, end + 1, numbered(end + 1, size, "text" if number % 2 else "line"))
        end += size
    assert LogPart.objects.count() == len(sizes) + 2
    for begin in (1, 2, PARTS_AT_ONCE, PARTS_AT_ONCE + 1, 40, MOST_EVENTS + 40, end - 3, end, end + 1):
        found = list(logevents.since(process.pk, begin))
        assert seqs(found) == list(range(begin, end + 1)) and all(e.body == {"n": e.seq} for e in found)
    assert seqs(logevents.backwards(process.pk)) == list(range(end, 0, -1))
    assert seqs(logevents.last(process.pk, 5)) == list(range(end - 4, end + 1))
    texts = [event for event in logevents.since(process.pk) if event.kind == "text"]
    assert list(logevents.since(process.pk, kinds=("text",))) == texts
    assert list(logevents.backwards(process.pk, ("text",))) == texts[::-1]
    assert list(logevents.holed(Process.objects.all())) == [(process.key, end, end, 0)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"a": 2**80, "b": -1.5, "c": [None, True, {"ü": "☃"}]},
        {"text": "\u2400 \x1b[31m \\ \" '%s' \u2028"},
    ],
)
def test_a_body_and_its_time_come_back_exactly(process: Process, body: dict[str, Any]) -> None:
    at = datetime(2026, 11, 25, 12, 0, 0, 123457, tzinfo=UTC)
    logevents.append(process.pk, 1, [NewEvent("note", body, logevents.microseconds(at))])
    [found] = logevents.since(process.pk)
    assert (found.seq, found.kind, found.body, found.at) == (1, "note", body, at)


@pytest.mark.parametrize("first", [1, 2, 150, MOST_EVENTS + 7])
def test_a_number_that_is_taken_is_not_given_again(process: Process, first: int) -> None:
    logevents.append(process.pk, 1, numbered(1, MOST_EVENTS + 7))
    with pytest.raises(IntegrityError), transaction.atomic():
        logevents.append(process.pk, first, numbered(first, 3))
    assert len(list(logevents.since(process.pk))) == MOST_EVENTS + 7


def test_two_rows_cannot_begin_with_one_number_and_none_is_empty(process: Process) -> None:
    for first, last in ((1, 1), (5, 4)):
        LogPart.objects.filter(first_seq=1).delete()
        LogPart.objects.create(process=process, first_seq=1, last_seq=2, events="[]")
        with pytest.raises(IntegrityError), transaction.atomic():
            LogPart.objects.create(process=process, first_seq=first, last_seq=last, events="[]")


def test_what_was_encoded_before_is_stored_as_it_is(process: Process) -> None:
    new = numbered(1, 2)
    logevents.append(process.pk, 1, Encoded(new, [b'[["line",{"n":"masked"},1],["line",{"n":2},2]]']))
    assert [event.body["n"] for event in logevents.since(process.pk)] == ["masked", 2]


def test_the_doctor_sees_a_row_that_is_missing(process: Process) -> None:
    for first in (1, 4, 7):
        logevents.append(process.pk, first, numbered(first, 3))
    Process.objects.filter(pk=process.pk).update(last_seq=9)
    assert list(rows.logs()) == []
    LogPart.objects.filter(first_seq=4).delete()
    assert "it has 6 events, the last is 9" in str(next(iter(rows.logs())))
