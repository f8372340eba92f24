"""Gemini CLI's stream, from recordings of the real program (0.61.0) with what followed.py adds."""

import time

import pytest

from agents.runtimes.gemini_stream import GeminiParser
from tests.runtimes.records import STDERR, Record, bodies, ended, fed, line, note, sample

CODES = {"rate_limit": 173, "retry_after": 173, "daily_quota": 173, "overloaded": 247, "turn_limit": 53}


def test_a_run_that_edits_files_reads_as_one_story() -> None:
    parser = GeminiParser()
    events = fed(parser, sample("gemini/edit"))
    told = [event.kind for event in events if event.kind != "usage"]
    assert told == ["started", "text", *["tool_start", "tool_end"] * 2, "text", "ended"]
    assert bodies(events, "started")[0]["model"] == "gemini-3.8-flash"
    assert [body["title"] for body in bodies(events, "tool_start")] == [
        "$ echo hi > a.txt; exit 3",
        "Write /wt/b.txt",
    ]
    shell, edit = bodies(events, "tool_end")
    assert shell["text"] == "Command exited with code: 3"
    assert (edit["name"], edit["error"], edit["files"]) == ("write_file", False, ["/wt/b.txt"])
    assert [body["text"] for body in bodies(events, "text")] == ["I go", "Done"]
    assert parser.outcome(ended()).kind == "done"


def test_tokens_are_counted_per_request_and_thoughts_are_output() -> None:
    usage = bodies(fed(GeminiParser(), sample("gemini/edit")), "usage")
    assert len({body["request_id"] for body in usage}) == len(usage) == 3
    assert {(body["input"], body["cache_read"], body["output"], body["thinking"]) for body in usage} == {
        (1000, 50, 107, 7)
    }


def test_what_no_request_has_shown_is_booked_at_the_end() -> None:
    records = [record for record in sample("gemini/edit") if b"huskies.usage" not in record.data]
    (body,) = bodies(fed(GeminiParser(), records), "usage")
    assert (body["input"], body["cache_read"], body["output"], body["thinking"]) == (3000, 150, 321, 21)


def test_a_killed_run_keeps_the_tokens_it_had_used() -> None:
    records = [record for record in sample("gemini/edit") if b'"result"' not in record.data]
    parser = GeminiParser()
    assert sum(body["output"] for body in bodies(fed(parser, records), "usage")) == 321
    assert parser.outcome(ended(None, signal=9)).kind == "crashed"


def test_an_end_without_a_result_is_no_success_whatever_the_exit_code() -> None:
    """It exits 0 when it is terminated."""
    parser = GeminiParser()
    fed(parser, sample("gemini/edit")[:-1])
    assert parser.outcome(ended(0)).kind == "crashed"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("refused_key", "auth"),
        ("bad_key", "auth"),
        ("rate_limit", "rate_limited"),
        ("retry_after", "rate_limited"),
        ("daily_quota", "rate_limited"),
        ("overloaded", "overloaded"),
        ("unreachable", "overloaded"),
        ("broken_stream", "overloaded"),
        ("too_long", "context_full"),
        ("unknown_model", "bad_model"),
        ("bad_request", "config"),
        ("turn_limit", "turn_limit"),
    ],
)
def test_failures_have_their_names_and_say_what_it_said(name: str, kind: str) -> None:
    parser = GeminiParser()
    events = fed(parser, sample(f"gemini/{name}"))
    outcome = parser.outcome(ended(CODES.get(name, 1)))
    assert outcome.kind == kind
    assert "It said: " in outcome.reason
    assert bodies(events, "ended")[0]["error"] is True


def test_a_provider_that_says_when_is_believed() -> None:
    parser = GeminiParser()
    fed(parser, sample("gemini/retry_after"))
    until = parser.outcome(ended(173)).until
    assert until is not None and abs(until - time.time() - 3600) < 60


def test_text_arrives_line_by_line_and_a_tool_or_the_end_of_the_run_ends_it() -> None:
    def said(text: str) -> Record:
        return line({"type": "message", "role": "assistant", "content": text, "delta": True})

    parser = GeminiParser()
    fed(parser, [note("step-start", step="agent"), said("half a sen")])
    assert parser.feed(note("step-end", step="agent", outcome="exited"))[0].body == {"text": "half a sen"}
    parser = GeminiParser()
    assert parser.feed(said("one\ntw"))[0].body == {"text": "one\n", "more": True}
    assert parser.feed(said("o")) == []
    events = parser.feed(line({"type": "tool_use", "tool_name": "glob", "tool_id": "1"}))
    assert [(event.kind, event.body["text"]) for event in events] == [("text", "two"), ("tool_start", "{}")]


def test_its_tries_are_told_from_stderr() -> None:
    parser = GeminiParser()
    said = b"Attempt 2 failed with status 503. Retrying with backoff... Error. Retrying after 10192ms..."
    events = parser.feed(Record(STDERR, said))
    assert [event.kind for event in events] == ["output", "retry"]
    body = events[1].body
    assert (body["attempt"], body["status"], body["delay_ms"]) == (2, 503, 10192)


def test_a_conversation_that_is_not_there_is_named() -> None:
    parser = GeminiParser()
    parser.feed(Record(STDERR, b"Error resuming session: No previous sessions found for this project."))
    assert parser.outcome(ended(42)).detail == "conversation_missing"


@pytest.mark.parametrize(
    ("code", "kind"), [(41, "auth"), (53, "turn_limit"), (55, "config"), (173, "rate_limited")]
)
def test_its_exit_code_tells_what_it_did_not(code: int, kind: str) -> None:
    parser = GeminiParser()
    fed(parser, sample("gemini/edit")[:2])
    assert parser.outcome(ended(code)).kind == kind
