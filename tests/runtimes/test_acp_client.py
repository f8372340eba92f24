"""The client of the `acp` runtime with a program of the protocol's own SDK: real children, confined."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.runtimes import acp, spoken
from agents.runtimes.acp import Acp
from agents.runtimes.base import Decision, Event
from tests.runtimes.conftest import MakeLaunch
from tests.runtimes.playing import play, talk
from tests.runtimes.records import bodies

pytestmark = pytest.mark.needs_bubblewrap

RUNTIME = Acp()
PROGRAM = Path(__file__).with_name("acp_program.py")
WORDS = {"text", "thinking", "tool_start", "tool_end"}


def confined(**changes: Any) -> dict[str, Any]:
    return {"level": "bubblewrap", **changes}


def playing(script: dict[str, Any], **entry: Any) -> dict[str, Any]:
    """A launch's changes: the program plays this."""
    command = [sys.executable, "-I", str(PROGRAM), json.dumps(script)]
    return confined(agent_config={"command": command, **entry})


def turns(*steps: list[dict[str, Any]], **offers: Any) -> dict[str, Any]:
    return {"turns": list(steps), **offers}


def replies(*lines: str | None) -> Callable[[Event], str | None]:
    """One line after each turn, until there are none."""
    left = list(lines)
    return lambda event: left.pop(0) if event.kind == "ended" and left else None


@pytest.mark.parametrize("way", ["load", pytest.param("resume", marks=pytest.mark.long)])
def test_it_works_and_a_later_session_goes_on_without_hearing_the_history_again(
    make_launch: MakeLaunch, way: str
) -> None:
    script = turns(
        [
            {"think": "hm"},
            {"say": "I wri"},
            {"say": "te.\n"},
            {"write": {"path": "a.txt", "content": "x"}},
            {
                "answer": {
                    "stopReason": "end_turn",
                    "usage": {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120},
                }
            },
        ],
        [
            {"say": "More."},
            {
                "answer": {
                    "stopReason": "end_turn",
                    "usage": {"inputTokens": 250, "outputTokens": 30, "totalTokens": 280},
                }
            },
        ],
        modes=["default", "yolo"],
        models=["small", "large"],
        **{way: True},
    )
    first = make_launch(model="large", **playing(script, mode="yolo"))
    events, outcome = play(RUNTIME, first)
    assert outcome.kind == "done"
    said = [(event.kind, event.body["text"]) for event in events if event.kind in WORDS]
    assert said == [("thinking", "hm"), ("text", "I write.\n")]
    (started,) = bodies(events, "started")
    assert (started["program"], started["mode"], started["model"]) == ("acp-program", "yolo", "large")
    told = {name: (first.copy / f"{name}.txt").read_text() for name in ("a", "mode", "model")}
    assert told == {"a": "x", "mode": "yolo", "model": "m=large"}
    assert (first.copy / "closed.txt").exists(), "it is told that the session is over"

    second = make_launch(
        "two", resume=True, prompt="It failed.", conversation=first.conversation, **playing(script)
    )
    carried = RUNTIME.carry(first.config, second)
    events, outcome = play(RUNTIME, second, carried)
    assert outcome.kind == "done"
    assert [event.body["text"] for event in events if event.kind in WORDS] == ["More."]
    assert (second.copy / "prompts.txt").read_text() == "It failed.\n"
    assert [(body["input"], body["output"]) for body in bodies(events, "usage")] == [(150, 10)]


def test_what_it_asks_is_answered_by_people_and_a_reason_reaches_the_agent(make_launch: MakeLaunch) -> None:
    every = {"options": ["allow_always", "allow_once", "reject_once"]}
    script = turns(
        [{"ask": every}, {"ask": every}, {"ask": every}, {"ask": {"options": ["allow_always"]}}],
        [{"ask": {**every, "withdrawn": True}}, {"say": "I see."}],
    )
    launch = make_launch(**playing(script, permissions="ask"))
    decisions = [
        Decision(True),
        Decision(True, "session"),
        Decision(False, reason="Not the build."),
        Decision(True),
    ]

    def reply(event: Event) -> str | None:
        return (
            RUNTIME.answer(event.body, decisions.pop(0)) if event.kind == "permission" and decisions else None
        )

    events, outcome = talk(RUNTIME, launch, reply)
    assert outcome.kind == "done"
    asked = bodies(events, "permission")
    assert (asked[0]["tool"], asked[0]["input"]) == ("execute", {"command": "rm -rf build"})
    assert [body["id"] for body in asked] == [body["id"] for body in bodies(events, "permission_over")]
    answers = [json.loads(one)["outcome"] for one in (launch.copy / "answer.txt").read_text().splitlines()]
    assert [answer.get("optionId", answer["outcome"]) for answer in answers] == [
        "id-allow_once",
        "id-allow_once",  # the server remembers the rest
        "id-reject_once",
        "cancelled",  # more than was allowed is not chosen
        "cancelled",  # nobody needs to answer any more
    ]
    told = (launch.copy / "prompts.txt").read_text()
    assert "it was denied: rm -rf build\nThe reason: Not the build." in told
    assert [body["title"] for body in bodies(events, "tool_start")] == ["rm -rf build"]


def test_nobody_is_asked_where_agents_are_free_and_an_answer_is_not_waited_for_without_end(
    make_launch: MakeLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = turns([{"ask": {"options": ["reject_once", "allow_once"]}}])
    free = make_launch(**playing(script))
    events, _ = play(RUNTIME, free)
    assert "id-allow_once" in (free.copy / "answer.txt").read_text()
    assert bodies(events, "permission") == [] and len(bodies(events, "tool_start")) == 1
    monkeypatch.setattr(spoken, "PERMISSION_SECONDS", 0.01)
    alone = make_launch("alone", **playing(script, permissions="ask"))
    events, _ = talk(RUNTIME, alone, lambda event: None)
    assert "id-reject_once" in (alone.copy / "answer.txt").read_text()
    assert [event.kind for event in events if event.kind.startswith("permission")] == [
        "permission",
        "permission_over",
    ]


HOSTILE: list[dict[str, Any]] = [
    {"print": "Welcome!"},
    {"print": '[1, {"a": null}]'},
    {"print": "[" * 100_000},
    {"print": '{"id": [1], "result": {}}'},
    {"print": '{"jsonrpc": "2.0", "id": 99, "error": "no"}'},
    {"print": '{"jsonrpc": "2.0", "method": "session/update", "params": 5}'},
    {"print": '{"jsonrpc": "2.0", "method": "future/thing", "params": {}}'},
    {"print": "\udcff\udcfe\x00"},
    {"update": {"sessionUpdate": "of_the_future", "a": {"b": 1}}},
    {"send": {"method": "fs/read_text_file", "params": {"path": "/etc/passwd", "sessionId": "x"}}},
]


def test_strange_lines_are_kept_and_change_nothing(make_launch: MakeLaunch) -> None:
    script = turns(
        HOSTILE,
        [{"huge_line": 20_000_000}, {"say_much": 700_000}, {"say": "\nStill here."}],
        [{"answer": {"stopReason": "of_the_future", "usage": 7, "_meta": {"quota": []}}}],
    )
    launch = make_launch(**playing(script))
    events, outcome = talk(RUNTIME, launch, replies(RUNTIME.message("Go on."), RUNTIME.message("And on.")))
    assert outcome.kind == "done"
    kept = [body["text"][:20] for body in bodies(events, "output")]
    assert kept == [
        "Welcome!",
        '[1, {"a": null}]',
        "[" * 20,
        '{"id": [1], "result"',
        "\ufffd\ufffd\ufffd",
        "x" * 20,
    ]
    assert bodies(events, "output")[-1]["cut"] > 19_000_000
    assert "of_the_future" in [body.get("title") for body in bodies(events, "note")]
    assert [body["text"] for body in bodies(events, "text")][-1] == "Still here."
    assert json.loads((launch.copy / "answer.txt").read_text()) == {"code": -32601}, "no file is read for it"
    assert (launch.copy / "prompts.txt").read_text() == "Do the story.\nGo on.\nAnd on.\n"


def test_an_interrupt_ends_the_turn_and_what_is_said_then_begins_another(make_launch: MakeLaunch) -> None:
    launch = make_launch(**playing(turns([{"say": "I hang.\n"}, {"hang": True}], [{"say": "Gladly."}])))
    interrupt, more = RUNTIME.command(launch).interrupt, [RUNTIME.message("Do this.")]

    def reply(event: Event) -> str | None:
        if event.kind == "text" and "hang" in event.body["text"]:
            return interrupt
        return more.pop() if event.kind == "ended" and more else None

    events, outcome = talk(RUNTIME, launch, reply)
    assert outcome.kind == "done"
    assert [(body["error"], body["text"]) for body in bodies(events, "ended")] == [
        (True, "The agent was interrupted."),
        (False, ""),
    ]
    assert (launch.copy / "prompts.txt").read_text() == "Do the story.\nDo this.\n"


@pytest.mark.long
def test_a_turn_that_was_interrupted_and_nothing_more_is_no_success(make_launch: MakeLaunch) -> None:
    launch = make_launch(**playing(turns([{"say": "I hang.\n"}, {"hang": True}])))
    _, outcome = talk(
        RUNTIME, launch, lambda event: RUNTIME.command(launch).interrupt if event.kind == "text" else None
    )
    assert (outcome.kind, outcome.detail) == ("stopped", "interrupted")


ENDS: list[tuple[str, list[dict[str, Any]], str]] = [
    ("401", [{"error": {"code": 401, "message": '{"error": {"code": 401}}'}}], "auth"),
    ("429", [{"error": {"data": {"details": "429 Too Many Requests, retry after 90s"}}}], "rate_limited"),
    ("refusal", [{"answer": {"stopReason": "refusal"}}], "crashed"),
    ("exit", [{"exit": 3}], "crashed"),
    ("signal", [{"crash": True}], "crashed"),
]


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        pytest.param(one[1], one[2], id=one[0], marks=[] if one[0] in ("401", "exit") else pytest.mark.long)
        for one in ENDS
    ],
)
def test_a_turn_that_fails_has_its_name(
    make_launch: MakeLaunch, steps: list[dict[str, Any]], kind: str
) -> None:
    _, outcome = play(RUNTIME, make_launch(**playing(turns([{"say": "words"}, *steps]))))
    assert (outcome.kind, outcome.detail) == (kind, "")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        pytest.param("sleep 600", "did not answer initialize for 1 seconds", id="silent"),
        pytest.param(["/nowhere/agent"], "could not be started: /nowhere/agent: No such file", id="missing"),
        pytest.param("echo no key >&2; exit 5", "ended with exit code 5 before it took a prompt", id="exits"),
    ],
)
def test_a_program_that_does_not_begin_is_told_with_the_remedy(
    make_launch: MakeLaunch, command: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acp, "PATIENCE", 1.0 if command == "sleep 600" else 60.0)
    events, outcome = play(RUNTIME, make_launch(**confined(agent_config={"command": command})))
    assert (outcome.kind, outcome.detail) == ("config", "not_begun")
    assert reason in outcome.reason and "Correct the agent's `command`" in outcome.reason
    assert bodies(events, "started") == []


@pytest.mark.parametrize(
    ("script", "entry", "kind", "reason"),
    [
        (
            {"modes": ["default", "plan"]},
            {"mode": "yolo"},
            "config",
            "it offers default, plan. Correct the agent's `mode`",
        ),
        ({"auth": "key"}, {}, "auth", "check the agent's credential"),
        pytest.param({"version": 2}, {}, "config", "speaks version 2, not 1", marks=pytest.mark.long),
        pytest.param(
            {"models": ["a"]}, {"model": "b"}, "bad_model", "change the agent's model", marks=pytest.mark.long
        ),
    ],
    ids=["mode", "log-in", "version", "model"],
)
def test_what_the_program_does_not_offer_is_told(
    make_launch: MakeLaunch, script: dict[str, Any], entry: dict[str, Any], kind: str, reason: str
) -> None:
    launch = make_launch(model=entry.get("model"), **playing(turns([], **script), **entry))
    _, outcome = play(RUNTIME, launch)
    assert outcome.kind == kind and reason in outcome.reason


def test_it_logs_in_by_the_method_that_the_entry_names_and_a_lost_conversation_is_told(
    make_launch: MakeLaunch,
) -> None:
    script = turns([{"say": "Hello."}], auth="key", load=True)
    launch = make_launch(**playing(script, auth_method="key"))
    _, outcome = play(RUNTIME, launch)
    assert outcome.kind == "done"
    again = make_launch(
        "two", resume=True, conversation=launch.conversation, **playing(script, auth_method="key")
    )
    carried = [one for one in RUNTIME.carry(launch.config, again) if "conversations" not in str(one[-1])]
    _, outcome = play(RUNTIME, again, carried)
    assert (outcome.kind, outcome.detail) == ("config", "conversation_missing")
