"""Parsers survive whatever a program prints, and parsing can stop and go on between any two records."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtimes.base import Event
from agents.runtimes.claude_stream import ClaudeParser
from agents.runtimes.codex_stream import CodexParser
from agents.runtimes.command import CommandParser
from agents.runtimes.gemini_stream import GeminiParser
from agents.runtimes.lines import CONTINUED, GAP, HEAD, MOST_LINE, UNFINISHED, LineParser
from agents.runtimes.scripted import ScriptedParser
from tests.runtimes.records import STDOUT, Record, bodies, ended, fed, line, sample

PARSERS: list[Callable[..., LineParser]] = [
    ClaudeParser,
    CodexParser,
    CommandParser,
    GeminiParser,
    ScriptedParser,
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
WORDS = (
    "type subtype message content usage event delta text thinking id model result errors is_error kind body "
    "index rate_limit_info unifiedWindows rateLimitType utilization resetsAt parent_tool_use_id tool_use_id "
    "outcome until item changes path status exit_code request thread thread_id used rate_limits primary "
    "used_percent input_tokens tool_name tool_id parameters file_path output stats models role delta severity"
).split()
VALUES = (
    "stream_event assistant user system result init api_retry text tool_use tool_result message_start "
    "message_delta content_block_start content_block_delta text_delta rate_limit_event permission_denied "
    "ended started usage thread.started item.started item.completed command_execution file_change agent_message "
    "mcp_tool_call error turn.failed turn.completed huskies.begin huskies.usage huskies.limits huskies.gave_up "
    "message tool_use error success write_file replace read_file run_shell_command"
).split()
likely_keys = st.sampled_from(WORDS)
likely = st.recursive(
    st.sampled_from(VALUES) | st.none() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(likely_keys, inner, max_size=6),
    max_leaves=25,
)
messages = st.dictionaries(likely_keys, likely, min_size=1, max_size=8)
records = st.builds(
    Record,
    st.integers(min_value=0, max_value=4),
    st.binary(max_size=60)
    | json_values.map(lambda one: json.dumps(one).encode())
    | messages.map(lambda one: json.dumps(one).encode()),
    st.integers(min_value=0, max_value=7),
)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)


def storable(events: list[Event]) -> None:
    """JSON that every database takes: no NUL, no half surrogates, no NaN, and not large."""
    for event in events:
        text = json.dumps(event.body, ensure_ascii=False, allow_nan=False)
        assert not any("\x00" in one for one in strings(event.body))
        assert len(text.encode()) < 64 * 1024


@pytest.mark.parametrize("make", PARSERS)
@given(fed_records=st.lists(records, max_size=12))
def test_nothing_that_is_printed_raises(make: Callable[..., LineParser], fed_records: list[Record]) -> None:
    parser = make()
    storable(fed(parser, fed_records))
    json.dumps(parser.state())
    assert parser.outcome(ended(1)).reason


@pytest.mark.parametrize("make", PARSERS)
@given(fed_records=st.lists(records, max_size=12))
def test_parsing_goes_on_from_a_stored_state(
    make: Callable[..., LineParser], fed_records: list[Record]
) -> None:
    """A restart of the server between any two records changes nothing."""
    at_once, in_pieces = make(), make()
    expected = fed(at_once, fed_records)
    got: list[Event] = []
    for record in fed_records:
        in_pieces = make(json.loads(json.dumps(in_pieces.state())))
        got += in_pieces.feed(record)
    assert got == expected
    assert in_pieces.state() == at_once.state()


RECORDINGS = [
    (ClaudeParser, "edit"),
    (CodexParser, "codex/edit"),
    (CodexParser, "codex/code_mode"),
    (GeminiParser, "gemini/edit"),
    (GeminiParser, "gemini/overloaded"),
]


@pytest.mark.parametrize(("make", "name"), RECORDINGS, ids=[name for _, name in RECORDINGS])
@given(data=st.data())
def test_a_recording_that_is_cut_anywhere_is_read_as_far_as_it_goes(
    make: Callable[..., LineParser], name: str, data: Any
) -> None:
    """Cut in the middle of a line, and what is left of it is kept as output; or with bytes changed."""
    whole = sample(name)
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.integers(1, len(whole[at].data) - 1))
    parser = make()
    events = fed(parser, [*whole[:at], Record(STDOUT, whole[at].data[:cut], UNFINISHED)])
    storable(events)
    assert bodies(events, "output")
    assert parser.outcome(None).kind in ("lost", "done")
    spoilt = bytearray(whole[at].data)
    spoilt[cut] ^= data.draw(st.integers(1, 255))
    storable(fed(make(), [*whole[:at], Record(STDOUT, bytes(spoilt)), *whole[at + 1 :]]))


@given(data=st.data())
def test_a_line_in_pieces_is_the_same_line(data: Any) -> None:
    whole = sample("edit")
    expected = fed(ClaudeParser(), whole)
    pieces: list[Record] = []
    for record in whole:
        cuts = sorted(data.draw(st.sets(st.integers(0, len(record.data)), max_size=3)))
        bounds = [0, *cuts, len(record.data)]
        parts = [record.data[a:b] for a, b in itertools.pairwise(bounds)]
        pieces += [Record(STDOUT, part, CONTINUED) for part in parts[:-1]] + [Record(STDOUT, parts[-1])]
    assert fed(ClaudeParser(), pieces) == expected


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
