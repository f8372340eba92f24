"""Codex's stream, from recordings of the real program (0.169.0) as its client tells it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from agents.runtimes.codex_outcomes import reset_time
from agents.runtimes.codex_stream import CodexParser
from tests.runtimes.records import Record, bodies, ended, fed, line, sample


def update(method: str, **params: Any) -> Record:
    return line({"type": "update", "method": method, "params": params})


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
    assert bodies(events, "tool_start")[1]["text"] == "add /wt/b.txt\nx\n"
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
    unseen = [record for record in records if b'"type": "usage"' not in record.data]
    (booked,) = bodies(fed(CodexParser(), unseen), "usage")
    turn = json.loads(next(one.data for one in records if b"turn_start" in one.data))["turn"]
    assert (booked["input"], booked["output"], booked["request_id"]) == (1000, 100, f"unseen-{turn}")
    unsaid = [record for record in unseen if b'"inputTokens": 3150' not in record.data]
    assert bodies(fed(CodexParser(), unsaid), "usage") == []


def test_a_killed_run_keeps_the_tokens_it_had_used() -> None:
    records = [record for record in sample("codex/edit") if b"turn_end" not in record.data]
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
        ("window_full", "rate_limited"),
        ("incomplete", "crashed"),
    ],
)
def test_failures_have_their_names_and_say_what_codex_said(name: str, kind: str) -> None:
    parser = CodexParser()
    events = fed(parser, sample(f"codex/{name}"))
    outcome = parser.outcome(ended())
    assert outcome.kind == kind
    assert "It said: " in outcome.reason
    assert bodies(events, "ended")[0]["error"] is True
    assert (outcome.until is not None) == (name in ("usage_limit", "window_full"))


def test_a_limits_end_is_known_to_the_second_where_the_account_tells_it() -> None:
    parser = CodexParser()
    (told,) = bodies(fed(parser, sample("codex/window_full")), "rate_limit")
    assert parser.outcome(ended()).until == told["resets_at"]


def test_what_is_no_failure_is_none() -> None:
    """A stream that broke and was tried again; a model that Codex has no description of; the newest models' tool."""
    for name in ("broken_stream", "unlisted", "code_mode"):
        parser = CodexParser()
        events = fed(parser, sample(f"codex/{name}"))
        assert parser.outcome(ended()).kind == "done"
        assert len(bodies(events, "retry")) == (name == "broken_stream")


def test_a_run_that_was_ended_while_it_waited_for_the_provider_waited_for_that() -> None:
    waiting = [record for record in sample("codex/retry_after") if b"failed" not in record.data]
    for how, kind in (("silent", "rate_limited"), ("stopped", "rate_limited"), ("timeout", "wall_limit")):
        parser = CodexParser()
        fed(parser, waiting)
        assert parser.outcome(ended(None, outcome=how)).kind == kind
    fed(parser, [update("item/agentMessage/delta", itemId="m1", delta="on")])
    assert parser.outcome(ended(None, outcome="silent")).kind == "hung"


def test_the_accounts_limits_are_told_when_they_change() -> None:
    def limits(percent: int) -> Record:
        windows = {"primary": {"usedPercent": percent, "resetsAt": 1795346917}, "secondary": None}
        return update("account/rateLimits/updated", rateLimits=windows)

    told = bodies(fed(CodexParser(), [limits(10), limits(10), limits(95)]), "rate_limit")
    assert [(body["status"], body["utilization"]) for body in told] == [
        ("allowed", 0.1),
        ("allowed_warning", 0.95),
    ]
    assert told[0]["resets_at"] == 1795346917


def test_a_conversation_that_is_not_there_is_named() -> None:
    parser = CodexParser()
    fed(parser, sample("codex/unknown_conversation"))
    assert parser.outcome(ended(1)).detail == "conversation_missing"


@pytest.mark.parametrize(
    ("at", "said", "code", "started", "outcome"),
    [
        ("exit", "", -9, True, ("crashed", "")),
        ("exit", "", 2, False, ("config", "program")),
        ("silent", "initialize for 100 seconds", None, False, ("config", "program")),
        ("thread/start", "unknown field `sandbox`", -32600, False, ("config", "program")),
        ("thread/start", "Missing environment variable: `X`.", -32600, False, ("auth", "")),
        (
            "thread/resume",
            "no rollout found for thread id 01a2",
            -32600,
            False,
            ("config", "conversation_missing"),
        ),
        ("turn/start", "thread not found", -32600, True, ("crashed", "")),
    ],
)
def test_a_conversation_that_fails_has_its_name(
    at: str, said: str, code: int | None, started: bool, outcome: tuple[str, str]
) -> None:
    parser = CodexParser()
    begun = [line({"type": "started", "thread": "t", "model": "m"})] if started else []
    fed(parser, [*begun, line({"type": "failed", "at": at, "said": said, "code": code})])
    judged = parser.outcome(ended(1))
    assert (judged.kind, judged.detail) == outcome


def test_what_it_asks_is_told_with_the_command_or_the_change() -> None:
    events = fed(CodexParser(), sample("codex/asked"))
    asked = bodies(events, "permission")
    assert [(body["tool"], body["input"]) for body in asked] == [
        ("shell", {"command": "echo one > one.txt"}),
        ("shell", {"command": "echo two > two.txt"}),
        ("edit", {"file_path": "/wt/c.txt", "change": "add", "diff": "x\n"}),
    ]
    assert [body["id"] for body in bodies(events, "permission_over")] == [body["id"] for body in asked]
    assert [body["error"] for body in bodies(events, "tool_end")] == [False, True, False]


def test_a_rule_for_one_file_never_fits_a_change_of_others_or_a_command_elsewhere() -> None:
    moved = {"path": "/wt/a.txt", "kind": {"type": "update", "move_path": "/etc/b"}, "diff": "-x"}
    item = {"id": "c1", "type": "fileChange", "changes": [moved]}
    parser = CodexParser()
    events = fed(
        parser,
        [
            line({"type": "started", "thread": "t", "model": "m", "copy": "/wt"}),
            update("item/started", item=item),
            line({"type": "permission", "id": "p1", "request": {"itemId": "c1"}}),
            line(
                {
                    "type": "permission",
                    "id": "p2",
                    "request": {"itemId": "c2", "command": "make", "cwd": "/wt"},
                }
            ),
            line(
                {
                    "type": "permission",
                    "id": "p3",
                    "request": {"itemId": "c3", "command": "make", "cwd": "/x y"},
                }
            ),
        ],
    )
    changed, here, there = (body["input"] for body in bodies(events, "permission"))
    assert changed["paths"] == ["/wt/a.txt", "/etc/b"] and "file_path" not in changed
    assert here == {"command": "make"} and there == {"command": "cd '/x y' && make"}


def test_an_interrupted_turn_alone_is_no_success_and_one_that_is_followed_is() -> None:
    for name, kind in (("cancelled", "stopped"), ("interrupted", "done")):
        parser = CodexParser()
        ends = bodies(fed(parser, sample(f"codex/{name}")), "ended")
        assert parser.outcome(ended()).kind == kind
        assert ends[0] == {"error": True, "text": "The agent was interrupted."}


def test_words_come_line_by_line_and_only_once() -> None:
    def item(method: str) -> Record:
        return update(method, item={"id": "m1", "type": "agentMessage", "text": "one\ntwo"})

    pieces = [update("item/agentMessage/delta", itemId="m1", delta=one) for one in ("on", "e\nt", "wo")]
    events = fed(CodexParser(), [item("item/started"), *pieces, item("item/completed")])
    assert [body["text"] for body in bodies(events, "text")] == ["one\n", "two"]
    assert [body["text"] for body in bodies(fed(CodexParser(), [item("item/completed")]), "text")] == [
        "one\n",
        "two",
    ]


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
