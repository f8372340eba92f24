"""Claude Code's stream, from recordings of the real program."""

import json
from typing import Any

import pytest

from agents.runtimes.base import Event
from agents.runtimes.bounds import BODY_BYTES, CUT
from agents.runtimes.claude_stream import ClaudeParser
from tests.runtimes.records import STDERR, Record, bodies, ended, fed, line, note, sample


def stream_event(event: dict[str, Any]) -> Record:
    return line({"type": "stream_event", "event": event, "parent_tool_use_id": None})


def opening(request: str = "msg_1", **usage: int) -> list[Record]:
    message = {"id": request, "model": "claude-sonnet-5-5", "usage": usage}
    return [
        stream_event({"type": "message_start", "message": message}),
        stream_event({"type": "content_block_start", "index": 0, "content_block": {"type": "text"}}),
    ]


def piece(text: str) -> Record:
    return stream_event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    )


def whole(text: str, request: str = "msg_1") -> Record:
    content = [{"type": "text", "text": text}]
    return line(
        {"type": "assistant", "message": {"id": request, "model": "claude-sonnet-5-5", "content": content}}
    )


def test_a_run_that_edits_a_file_reads_as_one_story() -> None:
    parser = ClaudeParser()
    events = fed(parser, sample("edit"))
    told = [event.kind for event in events if event.kind != "usage"]
    assert told == ["started", "thinking", "text", "tool_start", "tool_end", "text", "ended"]
    assert bodies(events, "started")[0]["model"] == "claude-sonnet-5-5"
    assert bodies(events, "tool_start")[0]["title"] == "$ echo hi > a.txt"
    assert bodies(events, "tool_end")[0]["name"] == "Bash"
    assert [body["text"] for body in bodies(events, "text")] == ["Working.", "Done one."]
    assert parser.outcome(ended()).kind == "done"


def test_tokens_are_counted_per_request_and_cost_what_the_program_says() -> None:
    events = fed(ClaudeParser(), sample("edit"))
    usage = bodies(events, "usage")
    first = [body for body in usage if body["request_id"] == usage[0]["request_id"]]
    assert sum(body["input"] for body in first) == 300
    assert sum(body["output"] for body in first) == 50
    assert sum(body["cache_read"] for body in usage) == 1000
    ours = sum(float(body["cost_usd"]) for body in usage)
    assert ours == pytest.approx(bodies(events, "ended")[0]["program_cost_usd"])


def test_a_resumed_run_counts_only_itself() -> None:
    """The program's own total counts the whole conversation again."""
    events = fed(ClaudeParser(), sample("resumed"))
    ours = sum(float(body["cost_usd"]) for body in bodies(events, "usage"))
    end = bodies(events, "ended")[0]
    assert ours == pytest.approx(end["program_run_cost_usd"])
    assert end["program_cost_usd"] > ours * 1.5


def test_a_killed_run_keeps_the_tokens_it_had_used() -> None:
    records = sample("edit")
    cut = next(place for place, record in enumerate(records) if b"message_delta" in record.data)
    events = fed(ClaudeParser(), records[:cut])
    assert sum(body["input"] for body in bodies(events, "usage")) == 300


def test_requests_that_the_stream_did_not_show_are_booked_at_the_end() -> None:
    side = {"claude-haiku-5-5": {"inputTokens": 1000, "outputTokens": 10}}
    shown = {"claude-sonnet-5-5": {"inputTokens": 7}}
    events = fed(
        ClaudeParser(),
        [*opening(input_tokens=7), line({"type": "result", "model_usage_since_last_result": side | shown})],
    )
    assert [(body["model"], body["input"]) for body in bodies(events, "usage")] == [
        ("claude-sonnet-5-5", 7),
        ("claude-haiku-5-5", 1000),
    ]


def test_text_arrives_line_by_line_and_is_said_once() -> None:
    parser = ClaudeParser()
    fed(parser, opening())
    assert bodies(parser.feed(piece("one\ntw")), "text") == [
        {"message": "msg_1", "block": 0, "text": "one\n", "more": True}
    ]
    assert parser.feed(piece("o\nthree")) != []
    assert [body["text"] for body in bodies(parser.feed(whole("one\ntwo\nthree")), "text")] == ["three"]


def test_an_answer_that_broke_off_keeps_its_last_words() -> None:
    parser = ClaudeParser()
    events = fed(
        parser, [*opening(), piece("half a sen"), *opening("msg_2"), piece("again"), whole("again", "msg_2")]
    )
    assert [(body["text"], body.get("interrupted", False)) for body in bodies(events, "text")] == [
        ("half a sen", True),
        ("again", False),
    ]


def test_long_text_is_passed_on_whole_in_several_events() -> None:
    text = "wörd " * 10_000
    events = fed(ClaudeParser(), [whole(text)])
    assert "".join(body["text"] for body in bodies(events, "text")) == text
    assert all(len(body["text"].encode()) <= BODY_BYTES for body in bodies(events, "text"))


def test_a_secret_split_over_pieces_is_masked() -> None:
    parser = ClaudeParser(redact=lambda data: data.replace(b"hunter22", b"[redacted]"))
    events = fed(parser, [*opening(), piece("my hun"), piece("ter22\n"), whole("my hunter22\n")])
    assert "hunter22" not in json.dumps([event.body for event in events])
    assert "my [redacted]" in bodies(events, "text")[0]["text"]


def test_large_tool_calls_and_results_are_cut_and_say_so() -> None:
    call = {
        "type": "tool_use",
        "id": "t1",
        "name": "Write",
        "input": {"file_path": "a", "content": "x" * 50_000},
    }
    answer = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "y" * 20_000}]}
    events = fed(
        ClaudeParser(),
        [
            line({"type": "assistant", "message": {"id": "m", "content": [call]}}),
            line({"type": "user", "message": {"content": [answer]}}),
        ],
    )
    start, end = bodies(events, "tool_start")[0], bodies(events, "tool_end")[0]
    assert (len(start["text"]), start["cut"]) == (BODY_BYTES, 50_000 - BODY_BYTES)
    assert (end["name"], end["cut"]) == ("Write", 20_000 - BODY_BYTES)


def test_refused_tools_limits_and_retries_are_events() -> None:
    denied = bodies(fed(ClaudeParser(), sample("denied")), "permission")
    assert (denied[0]["tool"], denied[0]["text"]) == ("Bash", "This command requires approval")
    near = bodies(fed(ClaudeParser(), sample("limit_nears")), "rate_limit")
    assert (near[0]["utilization"], near[0]["limit"]) == (0.93, "five_hour")
    retries = bodies(fed(ClaudeParser(), sample("overloaded")), "retry")
    assert [(one["attempt"], one["status"]) for one in retries] == [(1, 529), (2, 529)]


def test_the_same_limit_is_told_once() -> None:
    info = {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed", "resetsAt": 5}}
    assert len(fed(ClaudeParser(), [line(info), line(info)])) == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("refused_key", "auth"),
        ("forbidden", "auth"),
        ("no_key", "auth"),
        ("payment", "billing"),
        ("credit", "billing"),
        ("unknown_model", "bad_model"),
        ("too_long", "context_full"),
        ("rate_limit", "rate_limited"),
        ("usage_limit", "rate_limited"),
        ("server_error", "overloaded"),
        ("overloaded", "overloaded"),
        ("unreachable", "overloaded"),
        ("turn_limit", "turn_limit"),
        ("budget", "budget"),
        ("unknown_conversation", "config"),
    ],
)
def test_every_failure_has_its_name_and_a_sentence(name: str, kind: str) -> None:
    parser = ClaudeParser()
    fed(parser, sample(name))
    outcome = parser.outcome(ended(1))
    assert outcome.kind == kind
    assert len(outcome.reason) > 40


def test_a_broken_stream_goes_on_by_itself() -> None:
    parser = ClaudeParser()
    events = fed(parser, sample("broken_stream"))
    assert bodies(events, "retry")[0]["status"] is None
    assert parser.outcome(ended()).kind == "done"


def test_a_used_up_limit_says_until_when() -> None:
    parser = ClaudeParser()
    fed(parser, sample("usage_limit"))
    assert parser.outcome(ended(1)).until == 1795556895


def test_a_missing_conversation_is_told_apart_from_bad_settings() -> None:
    parser = ClaudeParser()
    fed(parser, sample("unknown_conversation"))
    assert parser.outcome(ended(1)).detail == "conversation_missing"
    parser = ClaudeParser()
    parser.feed(Record(STDERR, b"Session ID 1 is already in use."))
    assert parser.outcome(ended(1)).detail == "conversation_in_use"


def test_an_exit_before_the_first_event_is_a_matter_of_configuration() -> None:
    parser = ClaudeParser()
    fed(parser, [Record(STDERR, b"error: option '--permission-mode' argument 'foo' is invalid.")])
    outcome = parser.outcome(ended(1))
    assert outcome.kind == "config"
    assert "argument 'foo' is invalid" in outcome.reason


@pytest.mark.parametrize(
    ("exit", "kind"),
    [
        (None, "lost"),
        (ended(None, outcome="stopped", signal=15), "stopped"),
        (ended(None, outcome="silent", signal=9), "hung"),
        (ended(None, outcome="timeout", signal=9), "wall_limit"),
        (ended(None, outcome="output_limit", signal=9), "output_limit"),
        (ended(None, outcome="lease", signal=9), "lost"),
        (
            ended(None, outcome="spawn_failed", reason="The step agent could not start: no such file."),
            "config",
        ),
        (ended(1, outcome="step_failed", step="copy", main_started=False), "config"),
        (ended(None, signal=9), "crashed"),
        (ended(137), "crashed"),
        (ended(143), "crashed"),
        (ended(0), "crashed"),
    ],
)
def test_an_end_without_a_result_is_judged_by_the_runner(exit: dict[str, Any] | None, kind: str) -> None:
    parser = ClaudeParser()
    fed(parser, sample("edit")[:5])
    assert parser.outcome(exit).kind == kind


def test_success_needs_a_result_and_exit_code_0() -> None:
    parser = ClaudeParser()
    fed(parser, sample("edit"))
    assert parser.outcome(ended(1)).kind == "crashed"
    assert parser.outcome(ended(None, outcome="silent", signal=9)).kind == "hung"


def test_an_interrupt_is_not_taken_for_success_although_the_program_exits_0() -> None:
    parser = ClaudeParser()
    result = {"type": "result", "subtype": "error_during_execution", "is_error": True}
    fed(parser, [*sample("edit")[:1], line(result | {"terminal_reason": "aborted_tools"})])
    assert parser.outcome(ended(0)).kind == "stopped"


def test_steps_around_the_program_are_neither_read_nor_judged_as_the_program() -> None:
    parser = ClaudeParser()
    chatter = line({"type": "result", "is_error": True})
    events = fed(parser, [note("step-start", step="setup"), chatter])
    assert bodies(events, "output")[0]["step"] == "setup"
    fed(parser, [note("step-start", step="agent"), *sample("edit")])
    fed(parser, [note("step-end", step="agent", outcome="exited", code=0, signal=None)])
    fed(parser, [note("step-start", step="intake"), chatter])
    assert parser.outcome(ended(1, outcome="step_failed", step="intake")).kind == "done"


def test_what_is_unknown_is_kept_and_harms_nothing() -> None:
    odd = [
        {"type": "hologram", "x": "\ud800\x00"},
        {"type": "system", "subtype": "new"},
        {"no": "type"},
        [1],
        "text",
        5,
    ]
    events = fed(ClaudeParser(), [line(one) for one in odd])
    assert [event.kind for event in events] == ["note", "note", "note", "output", "output", "output"]
    json.dumps([event.body for event in events], ensure_ascii=False).encode()  # no half of a surrogate pair
    assert "\x00" not in repr(events)


def test_state_is_a_snapshot() -> None:
    parser = ClaudeParser()
    fed(parser, opening(input_tokens=5))
    before = parser.state()
    kept = json.dumps(before)
    fed(parser, [piece("more"), *opening("msg_2", input_tokens=9)])
    assert json.dumps(before) == kept
    again: list[Event] = ClaudeParser(before).feed(piece("line\n"))
    assert bodies(again, "text")[0]["text"] == "line\n"


# ---------------------------------------------------------------- several turns, and what it asks


def asks(request_id: str, **request: Any) -> Record:
    body = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "echo a > a.txt"}, **request}
    return line({"type": "control_request", "request_id": request_id, "request": body})


def test_a_call_that_it_asks_for_is_a_request_until_it_takes_it_back() -> None:
    events = fed(
        ClaudeParser(),
        [
            asks("r1"),
            line({"type": "control_cancel_request", "request_id": "r1"}),
            line({"type": "control_response", "response": {"subtype": "success", "request_id": "interrupt"}}),
        ],
    )
    assert [(event.kind, event.body["id"]) for event in events] == [
        ("permission", "r1"),
        ("permission_over", "r1"),
    ]
    assert events[0].body == {
        "id": "r1",
        "tool": "Bash",
        "text": "$ echo a > a.txt",
        "input": {"command": "echo a > a.txt"},
    }


@pytest.mark.parametrize(
    "record",
    [asks(""), asks("x" * 101), asks("r1", subtype="hook_callback"), line({"type": "control_request"})],
    ids=["no-id", "long-id", "another", "empty"],
)
def test_what_cannot_be_answered_is_no_request(record: Record) -> None:
    assert [event.kind for event in fed(ClaudeParser(), [record])] == ["note"]


def test_arguments_are_kept_as_far_as_they_fit_and_say_that_they_were_cut() -> None:
    (event,) = fed(ClaudeParser(), [asks("r1", input={"old_string": "x" * 50_000, "new_string": "y" * 4000})])
    assert event.body["input"]["old_string"].endswith(CUT) and event.body["input"]["new_string"] == "y" * 4000
    (event,) = fed(ClaudeParser(), [asks("r2", input={str(n): "x" * 50_000 for n in range(64)})])
    assert len(json.dumps(event.body)) < 3 * BODY_BYTES


def result(cost: float, output: int) -> Record:
    usage = {"claude-sonnet-5-5": {"inputTokens": 10, "outputTokens": output, "costUSD": cost}}
    return line({"type": "result", "subtype": "success", "model_usage_since_last_result": usage})


def test_each_turns_end_says_what_it_used_since_the_one_before() -> None:
    """What no request has shown is booked once, however many turns there are."""
    parser, shown = ClaudeParser(), ClaudeParser()
    events = fed(parser, [result(0.1, 5)])
    events += fed(ClaudeParser(parser.state()), [result(0.2, 7)])
    usage = bodies(events, "usage")
    assert [(body["input"], body["output"]) for body in usage] == [(10, 5), (10, 7)]
    assert [body["program_run_cost_usd"] for body in bodies(events, "ended")] == [0.1, 0.2]
    # Requests that the stream has shown are not booked again in any turn.
    known = fed(
        shown,
        [*opening(input_tokens=10), stream_event({"type": "message_delta", "usage": {"output_tokens": 5}})],
    )
    known += fed(shown, [result(0.1, 5)])
    known += fed(
        shown,
        [
            *opening("msg_2", input_tokens=10),
            stream_event({"type": "message_delta", "usage": {"output_tokens": 7}}),
        ],
    )
    known += fed(shown, [result(0.2, 7)])
    assert sum(body["output"] for body in bodies(known, "usage")) == 12
