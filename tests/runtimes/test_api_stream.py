"""The lines of our agent of the direct-API runtimes, from recordings of it."""

from decimal import Decimal

import pytest

from agents.runtimes.api_stream import ApiParser
from agents.runtimes.base import OutcomeKind
from tests.runtimes.records import STDOUT, Record, bodies, ended, fed, line, sample


def test_a_run_that_edits_files_reads_as_one_story() -> None:
    parser = ApiParser()
    events = fed(parser, sample("api/edit"))
    assert [event.kind for event in events if event.kind != "usage"] == [
        "started", "thinking", "text", "text", "tool_start", "tool_start", "tool_end", "tool_end",
        "tool_start", "tool_end", "retry", "tool_start", "tool_end", "text", "ended",
    ]  # fmt: skip
    assert [body["title"] for body in bodies(events, "tool_start")] == [
        "Read a.txt", "Write a.txt", "Edit a.txt", "$ cat a.txt; exit 3",
    ]  # fmt: skip
    assert [(body["error"], body.get("files")) for body in bodies(events, "tool_end")] == [
        (False, None), (False, ["a.txt"]), (False, ["a.txt"]), (True, None),
    ]  # fmt: skip
    assert bodies(events, "tool_start")[0]["reads"] == "a.txt"
    assert bodies(events, "tool_start")[2]["text"] == "-one\n+three"
    assert bodies(events, "text")[0] == {"text": "I look first.\n", "more": True}
    assert bodies(events, "ended") == [{"error": False, "turns": 4}]
    assert parser.outcome(ended()).kind == "done"


def test_each_request_is_booked_once_with_its_price() -> None:
    used = bodies(fed(ApiParser(), sample("api/edit")), "usage")
    assert [(one["input"], one["output"], one["cache_read"], one["thinking"]) for one in used] == [
        (1000, 100, 50, 7), (1000, 100, 0, 0), (1000, 100, 0, 0), (1000, 100, 0, 0),
    ]  # fmt: skip
    assert len({one["request_id"] for one in used}) == 4
    assert all(Decimal(one["cost_usd"]) > 0 for one in used)


def test_what_is_told_again_as_a_request_goes_on_is_booked_as_it_grows() -> None:
    used = bodies(fed(ApiParser(), sample("api/counted_twice")), "usage")
    assert [(one["input"], one["output"], one["cache_write"]) for one in used] == [(1000, 1, 30), (0, 99, 0)]
    assert len({one["request_id"] for one in used}) == 1


def test_a_limit_is_told_with_the_time_when_it_is_over() -> None:
    parser = ApiParser()
    events = fed(parser, sample("api/rate_limit"))
    until = bodies(events, "rate_limit")[0]["resets_at"]
    outcome = parser.outcome(ended(1))
    assert (outcome.kind, outcome.until) == ("rate_limited", until) and until > 0


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        ({"kind": "auth", "status": 401}, "auth"),
        ({"kind": "billing", "status": 402}, "billing"),
        ({"kind": "context_full", "status": 400}, "context_full"),
        ({"kind": "config", "status": 400}, "config"),
        ({"kind": "turn_limit"}, "turn_limit"),
        ({"kind": "nonsense", "status": 404}, "bad_model"),
        ({"kind": "nonsense"}, "crashed"),
        ({"kind": "done"}, "crashed"),
        ({"kind": 7, "status": "x"}, "crashed"),
    ],
)
def test_a_failure_is_named_by_its_kind_then_by_its_status(failure: object, kind: OutcomeKind) -> None:
    parser = ApiParser()
    assert isinstance(failure, dict)
    fed(parser, [line({"type": "started"}), line({"type": "failed", "said": "No.", **failure})])
    outcome = parser.outcome(ended(1))
    assert outcome.kind == kind and "It said: No." in outcome.reason


def test_a_conversation_that_was_not_there_begins_anew_the_next_time() -> None:
    parser = ApiParser()
    fed(parser, [line({"type": "failed", "kind": "conversation_missing", "said": "no such file"})])
    assert parser.outcome(ended(1)).detail == "conversation_missing"


def test_a_run_that_ended_without_a_word_about_it_has_crashed() -> None:
    parser = ApiParser()
    fed(parser, [*sample("api/edit")[:-1]])
    assert parser.outcome(ended(0)).kind == "crashed"
    fed(parser, [line({"type": "turn_end", "stop": "done"}), line({"type": "turn_start"})])
    assert parser.outcome(ended(0)).kind == "crashed"
    fed(parser, [line({"type": "turn_end", "stop": "interrupted"})])
    assert (parser.outcome(ended(0)).kind, parser.outcome(ended(0)).detail) == ("stopped", "interrupted")


def test_its_questions_are_shown_with_what_they_are_about() -> None:
    asked = {
        "type": "permission",
        "id": "permission-1",
        "tool": "run_command",
        "input": {"command": "rm -r x"},
    }
    events = fed(ApiParser(), [line(asked), line({"type": "permission_over", "id": "permission-1"})])
    assert [(event.kind, event.body["id"]) for event in events] == [
        ("permission", "permission-1"),
        ("permission_over", "permission-1"),
    ]
    assert (events[0].body["text"], events[0].body["input"]) == ("$ rm -r x", {"command": "rm -r x"})


def test_secrets_are_masked_in_what_it_prints() -> None:
    parser = ApiParser(None, lambda raw: raw.replace(b"secret", b"***"))
    record = Record(STDOUT, b'{"type": "text", "text": "a secret word"}')
    assert bodies(fed(parser, [record]), "text") == [{"text": "a *** word"}]
