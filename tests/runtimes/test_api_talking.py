"""Our agent of the direct-API runtimes while it works: messages, interrupts, questions, a kill."""

import time

from agents.runtimes.api import OPENAI, DirectApi
from agents.runtimes.base import Decision
from tests.runtimes.api_talk import USAGE, against, others_long, real, requested, scripted, summed, talking
from tests.runtimes.conftest import MakeLaunch
from tests.runtimes.playing import play

WAIT = "while [ ! -e go ]; do sleep 0.05; done"


@real
@others_long
def test_a_message_is_heard_with_the_next_request_and_after_the_turn(
    make_launch: MakeLaunch, runtime: DirectApi
) -> None:
    turns = [
        {"run": WAIT},
        {"text": "Heard.", "match": "Make it blue"},
        {"text": "Bye.", "match": "And green"},
    ]
    with scripted(turns) as standin:
        launch = make_launch(**against(standin, runtime))
        with talking(runtime, launch) as agent:
            agent.until("tool_start")
            agent.tell(runtime.message("Make it blue"))
            (launch.copy / "go").touch()
            assert agent.until("note", note="told")["text"] == "Make it blue"
            assert agent.until("ended") == {"error": False, "turns": 2}
            agent.tell(runtime.message("And green"))
            agent.until("ended")
            assert agent.end().kind == "done"  # its stdin is closed
        assert standin.left() == 0


@real
def test_an_interrupt_ends_its_turn_and_its_tool_and_it_goes_on_with_what_was_said(
    make_launch: MakeLaunch,
) -> None:
    turns = [{"run": "touch here; sleep 600"}, {"text": "Sorry.", "match": "Stop that"}]
    with scripted(turns) as standin:
        launch = make_launch(**against(standin, OPENAI))
        with talking(OPENAI, launch) as agent:
            agent.until("tool_start")
            while not (launch.copy / "here").exists():
                time.sleep(0.01)
            agent.tell(OPENAI.message("Stop that"))
            agent.tell(OPENAI.command(launch).interrupt)
            assert agent.until("ended")["error"] is True
            assert agent.until("text")["text"] == "Sorry."
            assert agent.end().kind == "done"
        assert "interrupted" in requested(standin)


@real
def test_an_interrupt_alone_is_a_stop(make_launch: MakeLaunch) -> None:
    with scripted([{"hang": 600}]) as standin:
        launch = make_launch(**against(standin, OPENAI))
        with talking(OPENAI, launch) as agent:
            agent.until("started")
            while not standin.requests("model"):
                time.sleep(0.01)
            agent.tell(OPENAI.command(launch).interrupt)
            agent.until("ended")
            outcome = agent.end()
    assert (outcome.kind, outcome.detail) == ("stopped", "interrupted")


@real
@others_long
def test_it_asks_before_it_changes_something(make_launch: MakeLaunch, runtime: DirectApi) -> None:
    turns = [
        {"calls": [{"tool": "list_directory", "input": {}}, {"run": "touch a.txt"}]},
        {"write": {"path": "b.txt", "content": "x"}},
        {"text": "Well.", "match": "Not there"},
    ]
    with scripted(turns) as standin:
        launch = make_launch(**against(standin, runtime, permissions="ask"))
        with talking(runtime, launch) as agent:
            asked = agent.until("permission")
            assert (asked["tool"], asked["input"]) == ("run_command", {"command": "touch a.txt"})
            agent.tell(runtime.answer(asked, Decision(True)))
            agent.until("permission_over", id=asked["id"])
            asked = agent.until("permission", tool="write_file")
            agent.tell(runtime.answer(asked, Decision(False, reason="Not there.")))
            assert agent.until("tool_end", name="write_file")["error"] is True
            agent.until("ended")
            assert agent.end().kind == "done"
    assert (launch.copy / "a.txt").exists() and not (launch.copy / "b.txt").exists()


@real
@others_long
def test_a_conversation_that_was_killed_in_the_middle_of_a_tool_goes_on(
    make_launch: MakeLaunch, runtime: DirectApi
) -> None:
    turns = [
        {"run": "touch here; sleep 600", "usage": USAGE},
        {"text": "Done.", "match": "Go on", "usage": USAGE},
    ]
    with scripted(turns) as standin:
        first = make_launch("one", **against(standin, runtime))
        with talking(runtime, first) as agent:
            agent.until("tool_start")
            while not (first.copy / "here").exists():
                time.sleep(0.01)
            agent.child.kill()
            assert agent.end().kind == "crashed"
            assert [one["input"] for one in summed(agent.events)] == [1000]
        second = make_launch(
            "two", resume=True, prompt="Go on.", conversation=first.conversation, **against(standin, runtime)
        )
        events, outcome = play(runtime, second, runtime.carry(first.config, second))
        assert (outcome.kind, standin.left(), standin.problems) == ("done", 0, [])
        assert "interrupted" in requested(standin) and "sleep 600" in requested(standin)
        assert [one["input"] for one in summed(events)] == [1000]
