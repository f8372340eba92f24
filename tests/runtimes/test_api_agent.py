"""Our agent of the direct-API runtimes itself, confined, against the stand-in for the providers."""

import time
from typing import Any

import pytest

from agents.runtimes.api import DIRECT_APIS, EDIT_TOOLS, OPENAI, DirectApi
from tests.runtimes.api_talk import KEY, USAGE, against, others_long, real, requested, scripted, summed
from tests.runtimes.conftest import MakeLaunch
from tests.runtimes.playing import play
from tests.runtimes.records import bodies


@real
@others_long
def test_it_edits_commits_and_goes_on_in_another_copy(make_launch: MakeLaunch, runtime: DirectApi) -> None:
    turns = [
        {
            "thinking": "let me see",
            "text": "I begin.\nNow.",
            "run": "echo hi > a.txt && git add -A",
            "usage": USAGE,
        },
        {"calls": [{"run": "git commit -qm first"}, {"run": "git log -1 --format=%an"}], "usage": USAGE},
        {"text": "Done.", "usage": USAGE},
        {"write": {"path": "b.txt", "content": "x\n"}, "match": "It failed", "usage": USAGE},
        {"text": "Done again.", "usage": USAGE},
    ]
    with scripted(turns) as standin:
        first = make_launch("one", **against(standin, runtime, system_prompt="Be brief."))
        events, outcome = play(runtime, first)
        assert (outcome.kind, standin.problems) == ("done", [])
        counts = [(one["input"], one["output"], one["cache_read"]) for one in summed(events)]
        assert counts == [(1000, 100, 50)] * 3
        assert [one["text"] for one in bodies(events, "text")] == ["I begin.\n", "Now.", "Done."]
        assert bodies(events, "thinking")[0]["text"] == "let me see"
        assert bodies(events, "tool_start")[0]["title"] == "$ echo hi > a.txt && git add -A"
        # One after the other, as they were asked for.
        assert bodies(events, "tool_end")[-1]["text"] == f"[stdout]\n{first.git_identity.name}\n"
        assert "Be brief." in requested(standin, 0) and "Do the story." in requested(standin, 0)

        second = make_launch(
            "two",
            resume=True,
            prompt="It failed.",
            conversation=first.conversation,
            **against(standin, runtime),
        )
        carried = runtime.carry(first.config, second)
        assert carried != []
        events, outcome = play(runtime, second, carried)
        assert (outcome.kind, standin.problems, standin.left()) == ("done", [], 0)
        assert len(summed(events)) == 2
        assert all(
            one in requested(standin, 3) for one in ("Do the story.", "It failed.", "git commit -qm first")
        )
        assert (second.copy / "b.txt").read_text() == "x\n"
        assert bodies(events, "tool_end")[0]["files"] == ["b.txt"]


@real
def test_it_speaks_to_servers_that_know_chat_completions_alone(make_launch: MakeLaunch) -> None:
    with scripted([{"run": "echo hi > a.txt", "usage": USAGE}, {"text": "Done.", "usage": USAGE}]) as standin:
        launch = make_launch(**against(standin, OPENAI, wire_api="chat"))
        events, outcome = play(OPENAI, launch)
        assert (outcome.kind, standin.problems, standin.left()) == ("done", [], 0)
        assert standin.requests("model")[0]["path"] == "/v1/chat/completions"
    assert [one["input"] for one in summed(events)] == [1000, 1000]
    assert (launch.copy / "a.txt").exists()
    assert all(KEY not in one.read_text() for one in (launch.config / "api").iterdir())


@real
def test_its_tools_reach_no_further_than_they_should_and_see_no_key(make_launch: MakeLaunch) -> None:
    """Its key stands in no environment, in no file, and in no memory that a command could read."""
    look = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; cat /proc/$PPID/environ || touch closed"
    turns = [
        {"run": f"({look}) > seen.txt 2>&1"},
        {"tool": "write_file", "input": {"path": "../outside.txt", "content": "x"}},
        {"tool": "write_file", "input": {"path": ".git/hooks/pre-commit", "content": "x"}},
        {"tool": "read_file", "input": {"path": "/etc/hostname"}},
        "Done.",
    ]
    with scripted(turns) as standin:
        launch = make_launch(**against(standin, OPENAI))
        events, outcome = play(OPENAI, launch)
        assert (outcome.kind, standin.left()) == ("done", 0)
    seen = (launch.copy / "seen.txt").read_bytes()
    assert f"HOME={launch.home}".encode() in seen and KEY.encode() not in seen
    assert (launch.copy / "closed").exists()
    assert [one["error"] for one in bodies(events, "tool_end")] == [False, True, True, True]
    assert not (launch.copy.parent / "outside.txt").exists()


@real
@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        ({"error": 401}, "auth"),
        ({"error": 402}, "billing"),
        ({"error": 404}, "bad_model"),
        ({"error": {"status": 429, "retry_after": 7200}}, "rate_limited"),
        ({"error": 503}, "overloaded"),
        ({"text": "some words", "drop": True}, "overloaded"),
        ({"text": "some words", "malformed": True}, "overloaded"),
        ({"text": "some words", "stream_error": {}}, "overloaded"),
    ],
    ids=["401", "402", "404", "429", "503", "broken", "malformed", "stream error"],
)
@pytest.mark.parametrize(
    "runtime", [pytest.param(one, marks=pytest.mark.long) for one in DIRECT_APIS], ids=lambda one: one.name
)
def test_its_failures_have_their_names(
    make_launch: MakeLaunch, runtime: DirectApi, turn: dict[str, Any], kind: str
) -> None:
    began = time.time()
    with scripted([turn | {"repeat": 9}]) as standin:
        events, outcome = play(runtime, make_launch(**against(standin, runtime)))
        tries = 2 if kind == "overloaded" else 1
        assert (outcome.kind, len(standin.requests("model"))) == (kind, tries)
    assert len(bodies(events, "retry")) == tries - 1
    if kind == "rate_limited":
        assert outcome.until is not None and 7200 <= outcome.until - began < 7300


@real
@others_long
def test_an_overload_that_passes_and_an_answer_that_breaks_off_are_gone_on_with(
    make_launch: MakeLaunch, runtime: DirectApi
) -> None:
    turns = [
        {"run": "touch a.txt"},
        {"error": 503},
        {"run": "touch b.txt"},
        {"text": "some words", "drop": True},
        {"text": "Done", "stop": "max_tokens"},
        " at last.",
    ]
    with scripted(turns) as standin:
        launch = make_launch(**against(standin, runtime))
        events, outcome = play(runtime, launch)
        assert (outcome.kind, standin.left(), standin.problems) == ("done", 0, [])
        assert requested(standin).count("Do the story.") == 1
        assert "some words" not in requested(standin) and "cut off" in requested(standin)
    assert [body["attempt"] for body in bodies(events, "retry")] == [1, 1]
    assert sorted(one.name for one in launch.copy.glob("*.txt")) == ["a.txt", "b.txt"]


@real
def test_it_ends_when_its_turns_are_used(make_launch: MakeLaunch) -> None:
    with scripted([{"run": "true"}, {"run": "true"}, "never said"]) as standin:
        _, outcome = play(OPENAI, make_launch(**against(standin, OPENAI, max_turns=2)))
        assert (outcome.kind, standin.left()) == ("turn_limit", 1)


@real
def test_a_conversation_that_is_not_there_is_named(make_launch: MakeLaunch) -> None:
    with scripted([]) as standin:
        _, outcome = play(OPENAI, make_launch(resume=True, **against(standin, OPENAI)))
    assert (outcome.kind, outcome.detail) == ("config", "conversation_missing")


@pytest.mark.needs_api
def test_without_bubblewrap_it_edits_and_no_more(make_launch: MakeLaunch) -> None:
    outside = {"tool": "write_file", "input": {"path": "/tmp/../etc/huskies-was-here", "content": "x"}}
    with scripted([{"write": {"path": "a.txt", "content": "x\n"}}, outside, "Done."]) as standin:
        launch = make_launch(**against(standin, OPENAI) | {"level": "none"})
        events, outcome = play(OPENAI, launch)
        assert (outcome.kind, standin.problems, standin.left()) == ("done", [], 0)
        offered = {one["name"] for one in standin.requests("model")[0]["body"]["tools"]}
    assert offered == set(EDIT_TOOLS)
    assert [one["error"] for one in bodies(events, "tool_end")] == [False, True]
    assert (launch.copy / "a.txt").read_text() == "x\n"
