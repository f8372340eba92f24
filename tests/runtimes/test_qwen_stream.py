"""Qwen Code's stream, from recordings of the real program (0.24.4) with what followed.py adds."""

from agents.runtimes.qwen_stream import QwenParser
from tests.runtimes.records import STDERR, Record, bodies, ended, fed, line, sample


def test_a_run_that_edits_files_reads_as_one_story() -> None:
    parser = QwenParser()
    events = fed(parser, sample("qwen-code/edit"))
    told = [event.kind for event in events if event.kind != "usage"]
    assert told == ["started", "text", *["tool_start", "tool_end"] * 2, "text", "ended"]
    begun = bodies(events, "started")[0]
    assert (begun["model"], begun["version"]) == ("qwen3-coder-plus", "0.24.4")
    assert [body["title"] for body in bodies(events, "tool_start")] == [
        "$ echo hi > a.txt; exit 3",
        "Write /wt/b.txt",
    ]
    shell, edit = bodies(events, "tool_end")
    assert (shell["error"], edit["error"]) == (True, False)
    assert [body["text"] for body in bodies(events, "text")] == ["I go", "Done"]
    assert parser.outcome(ended()).kind == "done"


def test_tokens_are_counted_per_request_and_the_cached_ones_are_not_input() -> None:
    usage = bodies(fed(QwenParser(), sample("qwen-code/edit")), "usage")
    assert len({body["request_id"] for body in usage}) == len(usage) == 3
    assert {(body["input"], body["cache_read"], body["output"], body["thinking"]) for body in usage} == {
        (1000, 50, 100, 7)
    }


def test_a_resumed_run_counts_only_itself() -> None:
    """The program's own sum counts the whole conversation again."""
    (usage,) = bodies(fed(QwenParser(), sample("qwen-code/resumed")), "usage")
    assert (usage["input"], usage["output"]) == (1000, 100)


def test_a_killed_run_keeps_the_tokens_it_had_used() -> None:
    records = [record for record in sample("qwen-code/edit") if b'"result"' not in record.data]
    parser = QwenParser()
    assert sum(body["output"] for body in bodies(fed(parser, records), "usage")) == 300
    assert parser.outcome(ended(None, signal=9)).kind == "crashed"


def test_the_limit_of_turns_and_a_missing_conversation_are_told_on_stderr_alone() -> None:
    parser = QwenParser()
    fed(parser, sample("qwen-code/turn_limit"))
    said = b"Reached max session turns for this session. Increase the number of turns by specifying maxSessionTurns"
    parser.feed(Record(STDERR, said))
    assert parser.outcome(ended(53)).kind == "turn_limit"
    parser = QwenParser()
    parser.feed(
        Record(STDERR, b"No saved session found with ID 1. Run `qwen --resume` without an ID to choose")
    )
    assert parser.outcome(ended(1)).detail == "conversation_missing"


def test_an_answer_ends_what_it_waited_for() -> None:
    refusal = {"type": "huskies.retry", "status": 429, "error": "429 slow down"}
    answer = {"type": "huskies.usage", "request": "r1", "model": "m", "usage": {"input_token_count": 1}}
    gave_up = {"type": "huskies.gave_up", "seconds": 5}
    parser = QwenParser()
    fed(parser, [line(refusal), line(answer), line(gave_up)])
    assert parser.outcome(ended(1)).kind == "crashed"  # of which it is not known why
    parser = QwenParser()
    fed(parser, [line(answer), line(refusal), line(gave_up)])
    assert parser.outcome(ended(1)).kind == "rate_limited"
