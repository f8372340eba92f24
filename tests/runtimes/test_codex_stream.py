"""Codex's stream, from recordings of the real program (0.169.0) with what followed adds."""

from datetime import UTC, datetime

import pytest

from agents.runtimes.codex_outcomes import reset_time
from agents.runtimes.codex_stream import CodexParser
from tests.runtimes.records import STDERR, Record, bodies, ended, fed, line, sample


def test_a_run_that_edits_files_reads_as_one_story() -> None:
    parser = CodexParser()
    events = fed(parser, sample("codex/edit"))
    told = [event.kind for event in events if event.kind != "usage"]
    assert told == ["started", "thinking", "text", *["tool_start", "tool_end"] * 2, "text", "ended"]
    begun = bodies(events, "started")[0]
    assert begun["model"] == "gpt-5.5" and len(begun["conversation"]) == 36
    assert [body["title"] for body in bodies(events, "tool_start")] == [
        "$ echo hi > a.txt; exit 3",
        "add /wt/b.txt",
    ]
    shell, edit = bodies(events, "tool_end")
    assert (shell["error"], shell["code"], edit["error"], edit["files"]) == (True, 3, False, ["/wt/b.txt"])
    assert [body["text"] for body in bodies(events, "text")] == ["I go", "Done"]
    assert parser.outcome(ended()).kind == "done"


def test_tokens_are_counted_per_request_and_the_cached_ones_are_not_input() -> None:
    usage = bodies(fed(CodexParser(), sample("codex/edit")), "usage")
    assert len({body["request_id"] for body in usage}) == len(usage) == 3
    assert {(body["input"], body["cache_read"], body["output"], body["thinking"]) for body in usage} == {
        (1000, 50, 100, 7)
    }


def test_a_resumed_run_counts_only_itself() -> None:
    """Codex's own sum counts the whole conversation again."""
    records = sample("codex/resumed")
    assert sum(body["input"] for body in bodies(fed(CodexParser(), records), "usage")) == 1000
    unseen = [record for record in records if b"huskies.usage" not in record.data]
    booked = bodies(fed(CodexParser(), unseen), "usage")
    assert [(body["input"], body["output"], body["request_id"]) for body in booked] == [
        (1000, 100, "unseen-turn")
    ]


def test_a_killed_run_keeps_the_tokens_it_had_used() -> None:
    records = [record for record in sample("codex/edit") if b"turn.completed" not in record.data]
    parser = CodexParser()
    assert sum(body["output"] for body in bodies(fed(parser, records), "usage")) == 300
    assert parser.outcome(ended(None, signal=9)).kind == "crashed"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("refused_key", "auth"),
        ("rate_limit", "rate_limited"),
        ("retry_after", "rate_limited"),
        ("usage_limit", "rate_limited"),
        ("quota", "billing"),
        ("server_error", "overloaded"),
        ("overloaded", "overloaded"),
        ("unreachable", "overloaded"),
        ("too_long", "context_full"),
        ("unknown_model", "bad_model"),
        ("bad_request", "config"),
    ],
)
def test_failures_have_their_names_and_say_what_codex_said(name: str, kind: str) -> None:
    parser = CodexParser()
    events = fed(parser, sample(f"codex/{name}"))
    outcome = parser.outcome(ended(1))
    assert outcome.kind == kind
    assert "It said: " in outcome.reason
    assert bodies(events, "ended")[0]["error"] is True
    assert (outcome.until is not None) == (name == "usage_limit")


def test_what_is_no_failure_is_none() -> None:
    """A stream that broke and was tried again; a model that Codex has no description of; the newest models' tool."""
    for name in ("broken_stream", "unlisted", "code_mode"):
        parser = CodexParser()
        events = fed(parser, sample(f"codex/{name}"))
        assert parser.outcome(ended()).kind == "done"
        assert len(bodies(events, "retry")) == (name == "broken_stream")


def test_a_run_that_was_ended_while_it_waited_for_the_provider_waited_for_that() -> None:
    waiting = [r for r in sample("codex/retry_after") if b"gave_up" not in r.data]
    for how, kind in (("silent", "rate_limited"), ("stopped", "rate_limited"), ("timeout", "wall_limit")):
        parser = CodexParser()
        fed(parser, waiting)
        assert parser.outcome(ended(None, outcome=how)).kind == kind
    fed(parser, [line({"type": "item.completed", "item": {"type": "agent_message", "text": "on"}})])
    assert parser.outcome(ended(None, outcome="silent")).kind == "hung"


def test_the_accounts_limits_are_told_when_they_change() -> None:
    def limits(percent: float) -> Record:
        windows = {"primary": {"used_percent": percent, "resets_at": 1795346917}, "secondary": None}
        return line({"type": "huskies.limits", "rate_limits": windows})

    told = bodies(fed(CodexParser(), [limits(10), limits(10), limits(95)]), "rate_limit")
    assert [(body["status"], body["utilization"]) for body in told] == [
        ("allowed", 0.1),
        ("allowed_warning", 0.95),
    ]
    assert told[0]["resets_at"] == 1795346917


def test_a_conversation_that_is_not_there_is_named() -> None:
    parser = CodexParser()
    parser.feed(Record(STDERR, b"Error: no rollout found for thread id 01a2"))
    assert parser.outcome(ended(1)).detail == "conversation_missing"


NOON = int(datetime(2026, 11, 25, 12, 0, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("or try again at 1:42 PM.", NOON + 6120),
        ("or try again at 11:00 AM.", NOON + 23 * 3600),
        ("or try again at 12:00 AM.", NOON + 12 * 3600),
        ("or try again at Nov 27th, 2026 12:20 PM.", NOON + 48 * 3600 + 1200),
        ("or try again at Feb 31st, 2026 12:20 PM.", None),
        ("or try again at 99:99 PM.", None),
        ("or try again later.", None),
    ],
)
def test_the_time_of_a_reset_is_read_from_the_prose(said: str, at: int | None) -> None:
    assert reset_time(said, NOON) == at
