"""A session's sums are what its requests used: however their counts are told, cut and mixed, and whenever a run is killed and gone on with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.models import LedgerRow, Session, Spend
from agents.prices import MICRO, cost
from agents.runtimes import RUNTIMES
from agents.runtimes.base import Event
from agents.runtimes.ledger import COUNTS, Ledger
from agents.services import booking
from pipeline.logevents import NewEvent, microseconds
from pipeline.models import Process
from tests import factories
from tests.agents.working import session
from tests.runtimes import hostile
from tests.runtimes.records import STDOUT, Record, fed, line

MODELS = ("claude-haiku-5-5", "gpt-5.5", "mystery-1")
KINDS = tuple(kind for kind in COUNTS if kind != "cache_write_1h")
Told = dict[str, int]


def summed(events: Iterable[Event]) -> Counter[str]:
    """Tokens by kind, and `usd` in millionths of a dollar, over all usage events."""
    total: Counter[str] = Counter()
    for event in events:
        if event.kind == "usage":
            total.update({kind: event.body[kind] for kind in COUNTS})
            total["usd"] += int(Decimal(event.body["cost_usd"]) * 10**6)
    return +total


def truth(requests: Iterable[tuple[str, Told]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for model, counts in requests:
        total.update(counts)
        prompt = sum(counts[kind] for kind in ("input", "cache_read", "cache_write"))
        total["usd"] += int(cost(model, counts, prompt).quantize(MICRO) * 10**6)
    return +total


tokens = st.integers(0, 400_000)


@st.composite
def counts(draw: st.DrawFn) -> Told:
    told = {kind: draw(tokens) for kind in KINDS}
    return told | {"cache_write_1h": draw(st.integers(0, told["cache_write"]))}


requests = st.lists(st.tuples(st.sampled_from(MODELS), counts()), min_size=1, max_size=6)


def parts(draw: Any, whole: Told) -> list[Told]:
    """The counts as they grow to the whole, told in any steps and some of them twice."""
    steps = [
        {kind: draw(st.integers(0, most)) for kind, most in whole.items()}
        for _ in range(draw(st.integers(0, 3)))
    ]
    grown: list[Told] = []
    last = dict.fromkeys(COUNTS, 0)
    for step in [*steps, whole, whole]:
        last = {kind: max(last[kind], step[kind]) for kind in COUNTS}
        grown.append(last)
    return grown


@given(made=requests, data=st.data())
def test_any_telling_of_the_same_requests_comes_to_the_same_sum(
    made: list[tuple[str, Told]], data: Any
) -> None:
    """In any steps, those of several conversations mixed, with a restart between any two, and the program's own totals at the end."""
    places = [
        (f"place-{number}", model, parts(data.draw, whole)) for number, (model, whole) in enumerate(made)
    ]
    ledger, events, begun = Ledger(), [], set[str]()
    while places:
        at = data.draw(st.integers(0, len(places) - 1))
        place, model, left = places[at]
        if place not in begun:
            begun.add(place)
            events += ledger.start(place, f"request-{place}", model, left.pop(0))
        else:
            events += ledger.grow(place, left.pop(0))
        if not left:
            places.pop(at)
        if data.draw(st.booleans()):
            ledger = Ledger(json.loads(json.dumps(ledger.state())))
    assert summed(events) == truth(made)
    totals: dict[str, Told] = {}
    for model, told in made:
        totals[model] = dict(Counter(totals.get(model, {})) + Counter(told))
    whole = {model: {kind: told.get(kind, 0) for kind in COUNTS} for model, told in totals.items()}
    assert ledger.settle(whole, "end") == [], "the program says what we have counted"
    unseen = {**dict.fromkeys(COUNTS, 0), "input": 7}
    more = {**whole, MODELS[0]: {kind: whole.get(MODELS[0], unseen)[kind] + unseen[kind] for kind in COUNTS}}
    if MODELS[0] in whole:
        assert summed(ledger.settle(more, "end"))["input"] == 7
        assert ledger.settle(more, "again") == [], "told twice, counted once"


# -- each program's own way of telling -------------------------------------------------------------------------------


def claude_turn(number: int, model: str, made: Told, growth: list[Told]) -> list[Any]:
    usage = [
        {
            "input_tokens": one["input"], "output_tokens": one["output"], "cache_read_input_tokens": one["cache_read"],
            "cache_creation_input_tokens": one["cache_write"], "cache_creation": {"ephemeral_1h_input_tokens": one["cache_write_1h"]},
            "output_tokens_details": {"thinking_tokens": one["thinking"]},
        }
        for one in growth
    ]  # fmt: skip
    start = {
        "type": "message_start",
        "message": {"id": f"msg_{number}", "model": model, "usage": {**usage[0], "output_tokens": 1}},
    }
    content = [{"type": "text", "text": "hello"}]
    return [
        {"type": "stream_event", "event": start},
        {
            "type": "assistant",
            "message": {"id": f"msg_{number}", "model": model, "content": content, "usage": usage[0]},
        },
        *({"type": "stream_event", "event": {"type": "message_delta", "usage": one}} for one in usage[1:]),
    ]


def claude_usage(made: Iterable[tuple[str, Told]]) -> dict[str, Any]:
    names = {
        "input": "inputTokens", "output": "outputTokens", "cache_read": "cacheReadInputTokens", "cache_write": "cacheCreationInputTokens",
        "cache_write_1h": "cacheCreationEphemeral1hInputTokens", "thinking": "thinkingTokens",
    }  # fmt: skip
    found: dict[str, Counter[str]] = {}
    for model, told in made:
        found.setdefault(model, Counter()).update({names[kind]: count for kind, count in told.items()})
    return {model: dict(one) for model, one in found.items()}


@given(runs=st.lists(requests, min_size=1, max_size=3), data=st.data())
def test_claude_counts_each_request_once_over_runs_turns_and_kills(runs: list[Any], data: Any) -> None:
    """Each run of the conversation is a process of its own; its figures count the whole conversation, and a killed one says none."""
    total: Counter[str] = Counter()
    everything: list[tuple[str, Told]] = []
    for made in runs:
        parser = RUNTIMES["claude-code"].parser()
        printed: list[Any] = [{"type": "system", "subtype": "init", "session_id": "s", "model": made[0][0]}]
        ends = data.draw(st.booleans())
        cut = len(made) if data.draw(st.booleans()) else data.draw(st.integers(0, len(made)))
        for number, (model, told) in enumerate(made):
            printed += claude_turn(number, model, told, parts(data.draw, told))
            if number + 1 == cut and ends:  # a turn's result within the process, as with several messages
                printed.append(result(made[:cut], [*everything, *made[:cut]]))
        if ends:
            printed.append(result(made[cut:] if cut else made, [*everything, *made]))
        everything += made
        events: list[Event] = []
        for one in printed:
            if data.draw(st.integers(0, 5)) == 0:
                parser = RUNTIMES["claude-code"].parser(json.loads(json.dumps(parser.state())))
            events += parser.feed(line(one))
        total += summed(events)
    assert total == truth(everything)


def result(turn: Iterable[tuple[str, Told]], whole: Iterable[tuple[str, Told]]) -> dict[str, Any]:
    used = {"modelUsage": claude_usage(whole), "model_usage_since_last_result": claude_usage(turn)}
    return {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "uuid": "u",
        "total_cost_usd": 1.0,
        **used,
    }


@given(runs=st.lists(st.lists(counts(), min_size=1, max_size=4), min_size=1, max_size=3), data=st.data())
def test_codex_takes_off_what_the_conversation_had_used_before(runs: list[list[Told]], data: Any) -> None:
    """Its sum counts the whole conversation; a run that is killed in its middle never says it."""
    total: Counter[str] = Counter()
    used: Counter[str] = Counter()
    expected: list[tuple[str, Told]] = []
    for number, made in enumerate(runs):
        printed: list[Any] = [{"type": "started", "thread": "t", "model": "gpt-5.5", "resumed": number > 0}]
        if number and data.draw(st.booleans()):  # else nothing can be taken off, and nothing is
            printed.append(codex_sum(used))
        printed.append({"type": "turn_start", "turn": f"turn-{number}"})
        for at, each in enumerate(made):
            told = {**each, "cache_write_1h": 0}
            one = {"type": "usage", "request": f"r{number}-{at}", "thread": "t", "usage": codex_usage(told)}
            printed += [one] * data.draw(st.integers(1, 2))
            used.update(told)
            printed += [codex_sum(used)] * data.draw(st.integers(0, 2))
            expected.append(("gpt-5.5", told))
        if data.draw(st.booleans()):
            printed.append({"type": "turn_end", "status": "completed"})
        parser, events = RUNTIMES["codex"].parser(), []
        for one in printed:
            events += parser.feed(line(one))
            parser = RUNTIMES["codex"].parser(json.loads(json.dumps(parser.state())))
        total += summed(events)
    assert total == truth(expected)


def codex_sum(used: Any) -> dict[str, Any]:
    words = {
        "input": "inputTokens",
        "cached_input": "cachedInputTokens",
        "cache_write_input": "cacheWriteInputTokens",
    }
    words |= {"output": "outputTokens", "reasoning_output": "reasoningOutputTokens"}
    told = codex_usage(used)
    total = {name: told[f"{word}_tokens"] for word, name in words.items()}
    return {
        "type": "update",
        "method": "thread/tokenUsage/updated",
        "params": {"tokenUsage": {"total": total}},
    }


def codex_usage(told: Any) -> dict[str, int]:
    return {
        "input_tokens": told["input"] + told["cache_read"] + told["cache_write"],
        "cached_input_tokens": told["cache_read"],
        "cache_write_input_tokens": told["cache_write"],
        "output_tokens": told["output"],
        "reasoning_output_tokens": told["thinking"],
    }


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if hostile.recordings(name)])
@given(data=st.data())
def test_a_recording_comes_to_the_same_sum_however_it_is_cut(runtime: str, data: Any) -> None:
    """With restarts anywhere; and what a run that is killed had counted until then is never more than the whole."""
    printed = [
        Record(STDOUT, one) for one in data.draw(st.sampled_from(list(hostile.recordings(runtime).values())))
    ]
    whole = summed(fed(RUNTIMES[runtime].parser(), printed))
    parser, events, killed = RUNTIMES[runtime].parser(), [], data.draw(st.integers(0, len(printed)))
    for at, record in enumerate(printed):
        if at == killed:
            assert summed(events) <= whole
        if data.draw(st.booleans()):
            parser = RUNTIMES[runtime].parser(json.loads(json.dumps(parser.state())))
        events += parser.feed(record)
    assert summed(events) == whole


# -- in the database -------------------------------------------------------------------------------------------------

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def running(db: None) -> Session:
    project = factories.project()
    return session(factories.story(project), factories.coder(project), reported_cost_usd=None)


def booked(running: Session, events: list[tuple[str, dict[str, Any]]], first: int = 1) -> Session:
    process = Process.objects.get(pk=running.process_id)
    booking.book(process, [NewEvent(kind, body, microseconds(AT)) for kind, body in events], first)
    running.refresh_from_db()
    return running


def usage(cost_usd: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "usage", {
        "request_id": "r",
        "model": "m",
        "input": 1,
        "output": 2,
        "cache_read": 3,
        "cache_write": 4,
        "thinking": 1,
        "cost_usd": cost_usd,
        **more,
    }


def test_rows_the_session_and_the_days_spending_hold_the_same_sums(running: Session) -> None:
    booked(running, [usage("0.1"), ("text", {"text": "x"}), usage("0.000001", unlisted=True)])
    booked(running, [usage("0.2")], first=4)
    rows = LedgerRow.objects.order_by("seq")
    assert [row.seq for row in rows] == [1, 3, 4] and [row.price_unknown for row in rows] == [
        False,
        True,
        False,
    ]
    spend = Spend.objects.get()
    assert (spend.session, spend.story_id, spend.day) == (running, running.story_id, AT.date())
    assert running.cost_usd == spend.usd == sum(row.cost_usd for row in rows) == Decimal("0.300001")
    assert (spend.tokens, spend.unpriced_usd) == (30, Decimal("0.000001"))
    for name in (
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "thinking_tokens",
    ):
        assert getattr(running, name) == getattr(spend, name) == sum(getattr(row, name) for row in rows) > 0


def test_the_programs_own_figure_stands_beside_ours_of_the_same_moment(running: Session) -> None:
    booked(running, [usage("0.50"), ("ended", {"program_run_cost_usd": 0.505}), usage("0.30")])
    assert (running.reported_cost_usd, running.reconciled_cost_usd) == (Decimal("0.505"), Decimal("0.5"))
    assert running.cost_difference == Decimal("0.005") and not running.cost_differs, "a cent is not marked"
    booked(running, [("ended", {"program_run_cost_usd": 0.40})], first=4)
    assert (running.reported_cost_usd, running.reconciled_cost_usd) == (Decimal("0.905"), Decimal("0.8"))
    assert running.cost_differs


@pytest.mark.parametrize(
    ("theirs", "ours", "marked"),
    [("1", "1", False), ("1.011", "1", True), ("1", "1.011", True), ("100", "100.9", False), ("0.02", "0.011", False), ("0", "0.02", True)],
)  # fmt: skip
def test_more_than_a_cent_and_one_per_cent_apart_is_marked(theirs: str, ours: str, marked: bool) -> None:
    row = Session(reported_cost_usd=Decimal(theirs), reconciled_cost_usd=Decimal(ours))
    assert row.cost_differs is marked and not Session().cost_differs


@pytest.mark.parametrize("nonsense", [None, "x", float("nan"), float("inf"), -5, 10**30, [], "9" * 400])
def test_a_figure_of_nonsense_is_booked_as_something_that_the_columns_hold(
    running: Session, nonsense: Any
) -> None:
    booked(running, [("ended", {"program_run_cost_usd": nonsense}), usage("0.1", program_cost_usd=nonsense)])
    assert running.cost_usd == Decimal("0.1")
    assert running.reported_cost_usd is None or 0 <= running.reported_cost_usd <= booking.MOST_USD
