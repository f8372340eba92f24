"""The `acp` runtime's parser, from recorded and from written lines, and what its failures mean."""

import json
import time
from typing import Any

import pytest

from agents.runtimes.acp_outcomes import judge
from agents.runtimes.acp_stream import AcpParser
from agents.runtimes.base import Event, Outcome
from tests.runtimes.records import bodies, ended, fed, line, note, sample


def read(name: str) -> tuple[list[Event], Outcome]:
    """A recording of our client with Gemini CLI 0.61.0 or Qwen Code 0.24.4, against the stand-in."""
    parser = AcpParser()
    events = fed(parser, [note("step-start", step="agent"), *sample(f"acp/{name}")])
    return events[1:], parser.outcome(ended(0))


def written(*lines: dict[str, Any], parser: AcpParser | None = None) -> list[Event]:
    return fed(
        parser or AcpParser(),
        [line({"type": "started", "session": "s", "model": "claude-sonnet-4-5"}), *map(line, lines)],
    )


def update(what: str, /, **fields: Any) -> dict[str, Any]:
    return {"type": "update", "update": {"sessionUpdate": what, **fields}}


def said(kind: str, text: str) -> dict[str, Any]:
    return update(kind, content={"type": "text", "text": text})


def turn_end(stop: str = "end_turn", **fields: Any) -> dict[str, Any]:
    return {"type": "turn_end", "stop": stop, **fields}


# ---------------------------------------------------------------- recorded


def test_work_is_words_calls_files_and_tokens() -> None:
    events, outcome = read("gemini_edit")
    assert (outcome.kind, outcome.reason) == ("done", "The agent finished its turn.")
    started = bodies(events, "started")[0]
    assert (started["program"], started["version"], started["mode"], started["model"]) == (
        "gemini-cli", "0.61.0", "yolo", "gemini-3.8-flash",
    )  # fmt: skip
    assert [body["text"] for body in bodies(events, "text")] == ["I write.\n", "Now.", "Done."]
    starts, ends = bodies(events, "tool_start"), bodies(events, "tool_end")
    assert [(body["name"], body["title"]) for body in starts] == [
        ("edit", "Writing to a.txt"),
        ("execute", "echo hi > b.txt; exit 3"),
    ]
    assert [body["id"] for body in starts] == [body["id"] for body in ends]
    assert (ends[0]["files"], "files" in ends[1]) == (["/data/copies/one/a.txt"], False)
    (usage,) = bodies(events, "usage")
    assert (usage["request_id"], usage["model"], usage["input"], usage["output"]) == (
        "turn-1", "gemini-3.8-flash", 3000, 300,
    )  # fmt: skip
    assert float(usage["cost_usd"]) > 0 and "unlisted" not in usage


def test_a_question_has_what_people_judge_and_an_allowed_call_begins_with_the_answer() -> None:
    events, outcome = read("gemini_asked")
    assert outcome.kind == "done"
    edit, shell = bodies(events, "permission")
    assert (edit["tool"], edit["text"]) == ("edit", "Writing to a.txt")
    assert edit["input"] == {"file_path": "/data/copies/one/a.txt", "old_string": "", "new_string": "hi\n"}
    assert (shell["tool"], shell["input"]) == ("execute", {"command": "echo hi > b.txt"})
    kinds = [event.kind for event in events if event.kind.startswith(("permission", "tool"))]
    assert kinds == [
        "permission",
        "permission_over",
        "tool_start",
        "tool_end",
        "permission",
        "permission_over",
    ]
    told = [body["text"] for body in bodies(events, "note") if body["note"] == "told"]
    assert told == ["You asked for permission and it was denied: echo hi > b.txt\nThe reason: Not this."]


def test_counts_of_each_request_are_booked_while_they_are_spent() -> None:
    events, outcome = read("qwen_edit")
    assert outcome.kind == "done"
    assert [(body["request_id"], body["input"], body["output"]) for body in bodies(events, "usage")] == [
        ("turn-1-1", 1000, 100),
        ("turn-1-2", 1000, 100),
        ("turn-1-3", 1000, 100),
    ]
    assert [event.kind for event in events].index("usage") < [event.kind for event in events].index(
        "tool_end"
    )
    # A call is announced before it is known what it is, and begins when that is told.
    assert [body["title"] for body in bodies(events, "tool_start")] == [
        "WriteFile: Writing to a.txt",
        "Shell: echo hi > b.txt",
    ]
    assert bodies(events, "tool_end")[0]["files"] == ["/data/copies/one/a.txt"]


def test_a_question_about_a_call_that_was_announced_says_what_it_is() -> None:
    events, outcome = read("qwen_asked")
    assert outcome.kind == "done"
    asked = [
        (body["tool"], body["input"].get("command"), body["text"]) for body in bodies(events, "permission")
    ]
    assert asked == [("edit", None, "Writing to a.txt"), ("execute", "echo hi > b.txt", "echo hi > b.txt")]
    assert bodies(events, "permission")[0]["input"]["new_string"] == "hi\n"
    assert [body["error"] for body in bodies(events, "tool_end")] == [False, True]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("qwen_refused_key", "auth"),
        ("gemini_refused_key", "auth"),
        ("gemini_unknown_model", "bad_model"),
        ("gemini_rate_limit", "rate_limited"),
        ("gemini_broken", "overloaded"),
        ("gemini_cancelled", "stopped"),
    ],
)
def test_a_failure_has_its_name(name: str, kind: str) -> None:
    events, outcome = read(name)
    assert outcome.kind == kind
    assert bodies(events, "ended")[-1]["error"] is True
    if kind == "rate_limited":
        assert outcome.until is not None and 7100 < outcome.until - time.time() < 7300


# ---------------------------------------------------------------- written


def test_words_are_joined_to_lines_and_a_secret_in_two_pieces_is_masked() -> None:
    parser = AcpParser(None, lambda data: data.replace(b"secret", b"***"))
    events = written(
        said("agent_message_chunk", "a sec"),
        said("agent_message_chunk", "ret\nand"),
        said("agent_thought_chunk", "hm"),
        {"type": "waiting"},
        update("agent_message_chunk", content={"type": "image", "data": "aGk="}),
        turn_end(),
        parser=parser,
    )
    assert [(event.kind, event.body.get("text")) for event in events[1:]] == [
        ("text", "a ***\n"),
        ("text", "and"),
        ("thinking", "hm"),
        ("text", "[image]"),
        ("ended", ""),
    ]


def test_a_call_is_told_once_however_it_comes() -> None:
    place = [{"path": "/c/a.py"}]
    events = written(
        update(
            "tool_call", toolCallId="1", title="Read a.py", kind="read", status="in_progress", locations=place
        ),
        update("tool_call_update", toolCallId="1", status="in_progress", title="Read all of a.py"),
        update("tool_call_update", toolCallId="1", status="completed", rawOutput={"lines": 3}),
        update(
            "tool_call", toolCallId="2", title="Edit", kind="edit", status="failed", rawInput={"path": "a.py"}
        ),
        update(
            "tool_call_update",
            toolCallId="3",
            status="completed",
            kind="edit",
            content=[{"type": "diff", "path": "b.py"}],
        ),
        update("tool_call", toolCallId="4", title="sleep", kind="execute", status="pending"),
        {
            "type": "permission",
            "id": "p",
            "request": {"toolCall": {"toolCallId": "4", "rawInput": {"command": "sleep 9"}}},
        },
        {"type": "permission_over", "id": "p", "allowed": True},
    )
    starts, ends = bodies(events, "tool_start"), bodies(events, "tool_end")
    assert [body["id"] for body in starts] == ["1", "2", "3", "4"] and starts[0]["reads"] == "/c/a.py"
    assert [(body["id"], body["error"], body.get("files")) for body in ends] == [
        ("1", False, None),
        ("2", True, None),
        ("3", False, ["b.py"]),
    ]
    assert "lines" in ends[0]["text"] and '"path": "a.py"' in starts[1]["text"]
    assert bodies(events, "permission")[0] == {
        "id": "p",
        "tool": "execute",
        "input": {"command": "sleep 9"},
        "text": "sleep",
    }


def tokens(events: list[Event]) -> list[tuple[int, ...]]:
    names = ("input", "output", "cache_read", "cache_write", "thinking")
    return [
        tuple(body[name] for name in names)
        for body in bodies(events, "usage")
        if body["input"] or body["output"]
    ]


def counts(given: int, output: int, **more: int) -> dict[str, int]:
    return {"inputTokens": given, "outputTokens": output, "totalTokens": given + output, **more}


def test_counts_of_the_whole_conversation_are_differenced_and_those_that_begin_anew_are_not() -> None:
    turns = [counts(100, 10), counts(250, 30), counts(20, 5)]
    lines = [one for used in turns for one in ({"type": "turn_start"}, turn_end(usage=used))]
    assert tokens(written(*lines)) == [(100, 10, 0, 0, 0), (150, 20, 0, 0, 0), (20, 5, 0, 0, 0)]
    again = fed(
        AcpParser(),
        [
            line({"type": "started", "used": counts(100, 10)}),
            line({"type": "turn_start"}),
            line(turn_end(usage=counts(160, 20))),
        ],
    )
    assert tokens(again) == [(60, 10, 0, 0, 0)]
    assert bodies(again, "usage")[0]["unlisted"] is True, "no model is known: priced as the dearest"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # The total tells whether the cached and the thought tokens stand within the others.
        (counts(100, 10, cachedReadTokens=60, thoughtTokens=4), (40, 10, 60, 0, 4)),
        (counts(40, 10, cachedReadTokens=60, cachedWriteTokens=5, totalTokens=115), (40, 10, 60, 5, 0)),
        (counts(40, 10, thoughtTokens=4, totalTokens=54), (40, 14, 0, 0, 4)),
    ],
)
def test_no_token_is_counted_twice(usage: dict[str, int], expected: tuple[int, ...]) -> None:
    assert tokens(written({"type": "turn_start"}, turn_end(usage=usage))) == [expected]


def cost(amount: object, currency: str = "USD") -> dict[str, Any]:
    return update("usage_update", used=5, size=9, cost={"amount": amount, "currency": currency})


def test_money_that_is_told_meanwhile_is_booked_as_it_grows_and_never_twice() -> None:
    parser = AcpParser()
    events = fed(
        parser,
        [
            line({"type": "started", "cost": 0.5, "model": "claude-sonnet-4-5"}),
            line({"type": "turn_start"}),
            *map(
                line,
                [
                    cost(0.5),
                    cost(0.52),
                    cost(0.53),
                    cost(0.1),
                    cost(9, "EUR"),
                    cost(float("nan")),
                    cost("x"),
                    cost(-1),
                ],
            ),
            line(turn_end(usage=counts(1000, 1000))),
        ],
    )
    booked = [body["cost_usd"] for body in bodies(events, "usage")]
    assert booked[:2] == ["0.020000", "0.010000"]
    # The tokens are worth $0.018 by the table: less than what was told.
    assert float(booked[2]) == 0 and len(booked) == 3
    assert bodies(events, "ended")[0]["program_run_cost_usd"] == "0.030000"


def test_a_plan_a_mode_and_what_is_not_known_are_notes() -> None:
    events = written(
        update(
            "plan",
            entries=[
                {"content": "Read", "status": "completed"},
                {"content": "Write", "status": "pending"},
                5,
            ],
        ),
        update("current_mode_update", currentModeId="plan"),
        update("of_the_future", a=1),
        update("available_commands_update", availableCommands=[{"name": "x"}]),
        {"type": "of_the_future"},
    )
    notes = bodies(events, "note")
    assert [body["note"] for body in notes] == ["plan", "mode", "of_the_future", "of_the_future"]
    assert notes[0]["text"].startswith("[completed] Read\n[pending] Write")


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        # Measured: codex-acp, opencode, Qwen Code; then what the protocol's errors may hold.
        ({"code": -32000, "said": "Authentication required"}, "auth"),
        ({"code": -32603, "said": 'Internal error: {"errorName": "APIError", "statusCode": 401}'}, "auth"),
        ({"code": -32603, "said": "Internal error: 401 Incorrect API key provided"}, "auth"),
        ({"code": -32603, "said": "Internal error: 429 Too Many Requests"}, "rate_limited"),
        ({"code": 429, "said": "Rate limit exceeded. Try again later."}, "rate_limited"),
        ({"code": -32603, "said": "insufficient_quota: check your plan and billing details"}, "billing"),
        ({"code": 500, "said": "models/x is not found for API version v1beta"}, "bad_model"),
        ({"code": 503, "said": "no capacity"}, "overloaded"),
        ({"code": -32603, "said": "fetch failed"}, "overloaded"),
        ({"code": -32603, "said": "context_length_exceeded"}, "context_full"),
        ({"code": -32603, "said": "TypeError: x is undefined after 404 bytes"}, "crashed"),
        ({"code": None, "at": "exit", "said": ""}, "crashed"),
    ],
)
def test_an_error_of_a_turn_is_named_by_its_words_or_its_code(failure: dict[str, Any], kind: str) -> None:
    outcome = judge({"at": "session/prompt", **failure}, started=True)
    assert (outcome.kind, outcome.detail) == (kind, "") and outcome.reason.endswith((".", failure["said"]))


@pytest.mark.parametrize(
    ("at", "said", "kind", "detail"),
    [
        ("session/load", "Internal error: No previous sessions found", "config", "conversation_missing"),
        ("session/resume", "Resource not found", "config", "conversation_missing"),
        ("session/load", "Authentication required", "auth", ""),
        ("session/set_model", "There is no model x", "bad_model", ""),
        ("session/new", "Internal error", "config", "not_begun"),
        ("exit", "", "config", "not_begun"),
    ],
)
def test_an_error_before_the_first_turn_says_what_to_do(at: str, said: str, kind: str, detail: str) -> None:
    outcome = judge({"at": at, "said": said, "code": -32603}, started=False)
    assert (outcome.kind, outcome.detail) == (kind, detail)


def test_a_failure_that_is_nothing_we_know_is_still_an_outcome() -> None:
    for value in (
        {},
        {"at": 5, "said": [], "code": "x"},
        {"at": "exit", "code": 10**30},
        {"at": "exit", "code": -999},
    ):
        assert judge(value, started=True).kind == "crashed"


def test_a_turn_that_goes_on_is_no_success() -> None:
    parser = AcpParser()
    written(turn_end(), {"type": "turn_start", "text": "More."}, parser=parser)
    assert parser.outcome(ended(1)).kind == "crashed"
    assert json.dumps(parser.state())
