"""Parsers of every runtime survive whatever a program prints, and parsing can stop and go on between any two records."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.runtimes import RUNTIMES
from agents.runtimes.base import Event
from agents.runtimes.claude_stream import ClaudeParser
from agents.runtimes.lines import CONTINUED, GAP, HEAD, MOST_LINE, UNFINISHED
from tests.runtimes import hostile
from tests.runtimes.records import STDOUT, Record, bodies, ended, fed, line

every_runtime = pytest.mark.parametrize("runtime", list(RUNTIMES))
recorded = pytest.mark.parametrize("runtime", [name for name in RUNTIMES if hostile.recordings(name)])
# The first example reads a parser's source for its words; there are many runtimes, and `long` has ten times the examples.
unhurried = settings(
    max_examples=settings.default.max_examples // 3,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def storable(events: list[Event]) -> None:
    for event in events:
        hostile.check(event.kind, event.body)


@every_runtime
@given(data=st.data())
@unhurried
def test_nothing_that_is_printed_raises(runtime: str, data: st.DataObject) -> None:
    printed = data.draw(st.lists(hostile.records(runtime), max_size=12))
    parser = RUNTIMES[runtime].parser()
    storable(fed(parser, printed))
    hostile.is_storable(parser.state())
    for exit in (ended(1), ended(0), None, {"outcome": "signalled", "signal": 9}, {}):
        assert parser.outcome(exit).reason


@every_runtime
@given(data=st.data())
@unhurried
def test_parsing_goes_on_from_a_stored_state(runtime: str, data: st.DataObject) -> None:
    """A restart of the server between any two records changes nothing."""
    printed = data.draw(st.lists(hostile.records(runtime), max_size=8))
    make = RUNTIMES[runtime].parser
    at_once, in_pieces = make(), make()
    expected = fed(at_once, printed)
    got: list[Event] = []
    for record in printed:
        in_pieces = make(json.loads(json.dumps(in_pieces.state())))
        got += in_pieces.feed(record)
    assert got == expected
    assert in_pieces.state() == at_once.state()


@every_runtime
@given(data=st.data())
@unhurried
def test_a_state_that_is_not_its_own_does_not_stop_it(runtime: str, data: st.DataObject) -> None:
    """Of an older version, or of a damaged row."""
    words = st.sampled_from([*RUNTIMES[runtime].parser().state(), "x"])
    state = data.draw(st.dictionaries(words, st.sampled_from([None, {}, "", 0, False]), max_size=5))
    parser = RUNTIMES[runtime].parser(state)
    storable(fed(parser, data.draw(st.lists(hostile.records(runtime), max_size=3))))
    hostile.is_storable(parser.state())


@every_runtime
@given(data=st.binary(min_size=1, max_size=80))
def test_what_is_no_json_is_kept_as_it_is(runtime: str, data: bytes) -> None:
    events = fed(RUNTIMES[runtime].parser(), [Record(STDOUT, b"<" + data)])
    said = "".join(event.body.get("text", "") for event in events)
    assert ("<" + data.decode("utf-8", "replace")).replace("\x00", "\ufffd") in said


@recorded
@given(data=st.data())
@unhurried
def test_a_recording_that_is_spoilt_anywhere_is_read_as_far_as_it_goes(
    runtime: str, data: st.DataObject
) -> None:
    """Cut in the middle of a line, whose beginning is kept as output; or with one thing changed, and everything after it."""
    whole = data.draw(st.sampled_from(list(hostile.recordings(runtime).values())))
    at = data.draw(st.integers(0, len(whole) - 1))
    before, after = (
        [Record(STDOUT, one) for one in whole[:at]],
        [Record(STDOUT, one) for one in whole[at + 1 :]],
    )
    cut = data.draw(st.integers(1, len(whole[at]) - 1))
    parser = RUNTIMES[runtime].parser()
    events = fed(parser, [*before, Record(STDOUT, whole[at][:cut], UNFINISHED)])
    storable(events)
    assert bodies(events, "output")
    assert parser.outcome(None).reason
    parser = RUNTIMES[runtime].parser()
    storable(fed(parser, [*before, Record(STDOUT, data.draw(hostile.spoilt(whole[at : at + 1]))), *after]))
    hostile.is_storable(parser.state())


@recorded
@given(data=st.data())
@unhurried
def test_a_line_in_pieces_is_the_same_line(runtime: str, data: st.DataObject) -> None:
    whole = [
        Record(STDOUT, one) for one in data.draw(st.sampled_from(list(hostile.recordings(runtime).values())))
    ]
    expected = fed(RUNTIMES[runtime].parser(), whole)
    pieces: list[Record] = []
    for record in whole:
        cuts = sorted(data.draw(st.sets(st.integers(0, len(record.data)), max_size=2)))
        bounds = [0, *cuts, len(record.data)]
        parts = [record.data[a:b] for a, b in itertools.pairwise(bounds)]
        pieces += [Record(STDOUT, part, CONTINUED) for part in parts[:-1]] + [Record(STDOUT, parts[-1])]
    assert fed(RUNTIMES[runtime].parser(), pieces) == expected


def test_a_line_longer_than_a_mebibyte_is_kept_as_cut_output_in_little_memory() -> None:
    parser = ClaudeParser()
    chunk, largest = b"x" * 65536, 0
    for _ in range(40):
        assert parser.feed(Record(STDOUT, chunk, CONTINUED)) == []
        largest = max(largest, len(json.dumps(parser.state())))
    events = parser.feed(Record(STDOUT, b"end"))
    assert bodies(events, "output")[0]["cut"] == 40 * 65536 + 3 - HEAD
    assert largest < 2 * MOST_LINE
    assert parser.feed(line({"type": "system", "subtype": "init"}))[0].kind == "started"


def test_dropped_bytes_end_a_line_and_are_told() -> None:
    parser = ClaudeParser()
    parser.feed(Record(STDOUT, b'{"type": "res', CONTINUED))
    events = parser.feed(Record(STDOUT, b'ult", "is_error": false}', GAP))
    assert [event.kind for event in events] == ["output", "note", "output"]


def test_a_last_line_without_a_newline_is_read() -> None:
    event = ClaudeParser().feed(Record(STDOUT, b'{"type":"system","subtype":"init"}', UNFINISHED))
    assert event[0].kind == "started"


def test_deep_nesting_is_output_and_not_a_crash() -> None:
    assert fed(ClaudeParser(), [Record(STDOUT, b"[" * 200_000)])[0].kind == "output"
    deep = b'{"type":"x","a":' + b'{"a":' * 500 + b"1" + b"}" * 501
    assert fed(ClaudeParser(), [Record(STDOUT, deep)])[0].kind == "note"
