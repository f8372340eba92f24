"""opencode's stream, from recordings of the real program (1.18.33) with what followed.py adds."""

import time

import pytest

from agents.runtimes.opencode_stream import OpencodeParser
from tests.runtimes.records import STDERR, Record, bodies, ended, fed, line, sample


def test_a_run_that_edits_files_reads_as_one_story() -> None:
    parser = OpencodeParser()
    events = fed(parser, sample("opencode/edit"))
    told = [event.kind for event in events if event.kind not in ("usage", "thinking")]
    assert told == ["started", "text", *["tool_start", "tool_end"] * 2, "text", "ended"]
    assert bodies(events, "started")[0]["model"] == "open-model"
    assert [body["title"] for body in bodies(events, "tool_start")] == [
        "$ echo hi > a.txt; exit 3",
        "Write /wt/b.txt",
    ]
    shell, edit = bodies(events, "tool_end")
    assert (shell["error"], shell["code"], edit["error"], edit["files"]) == (True, 3, False, ["/wt/b.txt"])
    assert [body["text"] for body in bodies(events, "text")] == ["I go", "Done"]
    assert parser.outcome(ended()).kind == "done"


@pytest.mark.parametrize(("name", "requests"), [("edit", 3), ("resumed", 1)])
def test_tokens_are_counted_per_request_and_thoughts_are_output(name: str, requests: int) -> None:
    usage = bodies(fed(OpencodeParser(), sample(f"opencode/{name}")), "usage")
    assert len({body["request_id"] for body in usage}) == len(usage) == requests
    assert {(body["input"], body["cache_read"], body["output"], body["thinking"]) for body in usage} == {
        (1000, 50, 100, 7)
    }


def test_an_end_in_the_middle_is_no_success_whatever_the_exit_code() -> None:
    parser = OpencodeParser()
    fed(parser, [record for record in sample("opencode/edit") if b'"reason":"stop"' not in record.data])
    assert parser.outcome(ended(0)).kind == "crashed"


def test_a_conversation_that_was_too_long_and_was_shortened_is_no_failure() -> None:
    """The program's exit code says that it was."""
    parser = OpencodeParser()
    fed(parser, sample("opencode/shortened"))
    assert parser.outcome(ended(1)).kind == "done"
    assert parser.outcome(ended(None, signal=9)).kind == "crashed"


def test_a_provider_that_says_when_is_believed() -> None:
    data = {"message": "Slow down", "statusCode": 429, "responseHeaders": {"retry-after": "3600"}}
    parser = OpencodeParser()
    fed(parser, [line({"type": "error", "error": {"name": "APIError", "data": data}})])
    outcome = parser.outcome(ended(1))
    assert outcome.kind == "rate_limited" and outcome.until is not None
    assert abs(outcome.until - time.time() - 3600) < 60


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        (b"The conversation to go on with is not there: its database holds none.", "conversation_missing"),
        (b"The repository brings plugins of opencode along in .opencode/plugin, which it would run.", ""),
    ],
)
def test_what_keeps_it_from_beginning_is_told(said: bytes, detail: str) -> None:
    parser = OpencodeParser()
    parser.feed(Record(STDERR, said))
    outcome = parser.outcome(ended(1))
    assert (outcome.kind, outcome.detail) == ("config", detail)
