"""What the watchdog learns of a session from its events."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agents.services.progress import MOST_OPEN, MOST_READ, Watch, new_reads
from pipeline.logevents import NewEvent, microseconds

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
COPY = "/data/copies/k"
bodies = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["a", "b"]),
        "request_id": st.sampled_from(["r1", "r2", "unseen-x", ""]),
        "within": st.sampled_from(["", "t1"]),
        "reads": st.sampled_from([f"{COPY}/a.py", "b.py"]),
        "files": st.just(["a.py"]),
        "status": st.sampled_from(["", "allowed", "allowed_warning", "rejected"]),
        "resets_at": st.none() | st.integers(0, 2**31),
        "delay_ms": st.integers(0, 10_000),
        "overage": st.booleans(),
    },
)
kinds = st.sampled_from(["started", "text", "usage", "tool_start", "tool_end", "rate_limit", "retry", "note"])
streams = st.lists(
    st.builds(lambda kind, body: NewEvent(kind, body, microseconds(NOW)), kinds, bodies), max_size=30
)


def watched(*events: tuple[str, dict[str, Any]]) -> Watch:
    watch = Watch()
    watch.take([NewEvent(kind, body, microseconds(NOW)) for kind, body in events], copy=COPY, heard=1)
    return watch


@given(streams, st.integers(0, 30))
def test_a_restart_in_the_middle_of_a_stream_changes_nothing(events: list[NewEvent], cut: int) -> None:
    whole, half = Watch(), Watch()
    whole.take(events, copy=COPY, heard=5)
    half.take(events[:cut], copy=COPY, heard=3)
    rest = Watch.of({"watch": half.to_json()})
    rest.take(events[cut:], copy=COPY, heard=5)
    assert rest == whole
    assert whole.tool_turns <= whole.turns + 1
    assert len(whole.read) <= MOST_READ and len(whole.open) <= MOST_OPEN


def test_a_request_is_one_turn_however_often_its_counts_grow_and_a_nested_one_is_none() -> None:
    usage = [("usage", {"request_id": name}) for name in ("r1", "r1", "r2", "r1", "unseen-9")]
    watch = watched(*usage, ("usage", {"request_id": "n", "within": "t"}))
    assert (watch.turns, watch.tool_turns) == (2, 0)


def test_talk_is_no_tool_turn_and_several_tools_of_one_turn_are_one() -> None:
    tool = ("tool_start", {"id": "a"})
    watch = watched(
        ("usage", {"request_id": "1"}), ("text", {}), ("usage", {"request_id": "2"}), tool, tool,
        ("usage", {"request_id": "3"}), ("tool_start", {"id": "n", "within": "t"}), tool,
    )  # fmt: skip
    assert (watch.turns, watch.tool_turns) == (3, 2)


def test_a_file_that_was_read_before_in_another_copy_is_not_new() -> None:
    first = watched(("tool_start", {"reads": "/data/copies/k/src/a.py"}))
    again, other = Watch(), Watch()
    again.take(
        [NewEvent("tool_start", {"reads": "/data/copies/z/src/a.py"}, microseconds(NOW))],
        copy="/data/copies/z",
        heard=1,
    )
    other.take(
        [NewEvent("tool_start", {"reads": "/data/copies/z/src/b.py"}, microseconds(NOW))],
        copy="/data/copies/z",
        heard=1,
    )
    assert not new_reads(again, [first])
    assert new_reads(other, [first]) and new_reads(first, [])


def test_silence_does_not_count_while_a_tool_is_open_or_a_pause_was_announced() -> None:
    later = 10 * 10**9 + 1
    assert watched(("text", {})).silent_for(later, NOW) == 10
    assert watched(("tool_start", {"id": "a"})).silent_for(later, NOW) == 0
    assert watched(("tool_start", {"id": "a"}), ("tool_end", {"id": "a"})).silent_for(later, NOW) == 10
    assert watched(("tool_start", {"id": "a"}), ("usage", {"request_id": "r"})).silent_for(later, NOW) == 10
    assert watched(("retry", {"delay_ms": 1000})).silent_for(later, NOW) == 0
    reset = int(NOW.timestamp()) + 60
    assert watched(("rate_limit", {"status": "rejected", "resets_at": reset})).silent_for(later, NOW) == 0
    assert Watch().silent_for(later, NOW) == 0, "nothing was heard of it yet"


def test_a_refusal_blocks_until_the_agent_goes_on_and_a_warning_only_throttles() -> None:
    refused = ("rate_limit", {"status": "rejected", "resets_at": 99})
    assert (watched(refused).blocked, watched(refused).until) == (NOW.timestamp(), 99)
    assert watched(refused, ("text", {})).blocked == 0
    assert watched(("rate_limit", {"status": "rejected", "overage": True})).blocked == 0
    soft = watched(("rate_limit", {"status": "allowed_warning", "resets_at": 99}))
    assert soft.throttled and not soft.blocked
    assert not watched(
        ("rate_limit", {"status": "allowed_warning"}), ("rate_limit", {"status": "allowed"})
    ).throttled
