"""The `acp` runtime works a story with real programs, Gemini CLI and Qwen Code by the Agent Client Protocol, against the stand-in."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.models import PermissionRequest, Session
from agents.models.permission import Asking
from agents.runtimes.programs import find_node
from agents.services import permissions, pool, talking
from agents.standin import StandIn
from pipeline import conf
from pipeline.models import GateRun, Story
from pipeline.processes.identity import marked_processes
from pipeline.processes.runfolder import MARKER
from tests.agent_programs import GEMINI, QWEN, AgentProgram, programs
from tests.e2e.desk import KEY, Desk
from tests.e2e.shop import Shop
from tests.factories import ALICE, git
from tests.logs import words

pytestmark = [
    pytest.mark.needs_bubblewrap,
    pytest.mark.timeout(240),
    pytest.mark.on_sqlite,  # nothing of it is a matter of the database
]

USAGE = {"input": 1000, "output": 100}
LOG_IN = (
    "GEMINI_API_KEY=$HUSKIES_API_KEY GOOGLE_GEMINI_BASE_URL=$HUSKIES_BASE_URL GEMINI_CLI_NO_RELAUNCH=true"
)
# Else it asks the model once more after a turn, for its memory and for what one might say next.
QWEN_SETTINGS = {"memory": {"enableManagedAutoMemory": False}, "ui": {"enableFollowupSuggestions": False}}
QWEN_LOG_IN = (
    f"mkdir -p ~/.qwen; echo {shlex.quote(json.dumps(QWEN_SETTINGS))} > ~/.qwen/settings.json; "
    "OPENAI_API_KEY=$HUSKIES_API_KEY OPENAI_BASE_URL=$HUSKIES_BASE_URL OPENAI_MODEL=$HUSKIES_MODEL"
)
COMMANDS = {
    GEMINI: f"{LOG_IN} exec {find_node()} PROGRAM --acp --skip-trust",
    QWEN: f"{QWEN_LOG_IN} exec {find_node()} PROGRAM --acp --auth-type openai",
}


@pytest.fixture
def program() -> AgentProgram:
    return GEMINI


@pytest.fixture
def desk(shop: Shop, program: AgentProgram) -> Iterator[Desk]:
    entry = {"command": COMMANDS[program].replace("PROGRAM", str(program.find())), "mode": "yolo"}
    with StandIn([]) as stand_in:
        yield Desk(shop, stand_in, replace(program, runtime="acp", entry=entry))
        assert stand_in.problems == []


def newest(desk: Desk, story: Story) -> Session:
    return desk.shop.sessions(story)[-1]


@programs(GEMINI, long=[QWEN])
def test_it_edits_the_server_commits_and_a_red_gate_is_gone_on_with_in_another_copy(desk: Desk) -> None:
    turns = [
        {"write": {"path": "button.txt", "content": "red\n"}, "usage": USAGE},
        {"run": "touch broken", "usage": USAGE},
        {"text": "I am done.", "usage": USAGE},
        {"run": "rm broken", "match": "the button is missing", "usage": USAGE},
        {"text": "Now I am done.", "usage": USAGE},
    ]
    story = desk.until_stage(desk.start(desk.open(turns)), "done")
    first, second = desk.shop.sessions(story)
    assert (first.outcome, second.outcome, story.retries, story.crashes) == ("done", "done", 1, 0)
    assert (second.conversation, second.resumed) == (first.conversation, True)
    assert [run.verdict for run in GateRun.objects.order_by("pk")] == ["failed", "passed", "passed"]
    assert "Add a button" in desk.said() and "the button is missing" in desk.said()
    assert desk.fake.left("desk") == 0
    assert sorted(git("ls-files", cwd=desk.repo).split()) == [
        ".huskies/project.yaml",
        "button.txt",
        "check.sh",
    ]
    # Gemini CLI tells what a turn used when that is over, Qwen Code each request; nothing of the first is counted again.
    assert (first.input_tokens, second.input_tokens) == (3000, 2000)
    log = words(second.process)
    assert KEY not in log and "Now I am done." in log
    assert "button.txt" not in log, "the history is not told again"


def until_asked(desk: Desk, story: Story, number: int) -> PermissionRequest:
    rows = PermissionRequest.objects.filter(session__story=story).order_by("pk")
    desk.shop.server.until(lambda: rows.count() >= number, what=f"request {number}", seconds=60)
    return rows[number - 1]


@pytest.mark.needs_gemini
def test_people_allow_and_deny_and_the_agent_hears_why(desk: Desk) -> None:
    turns = [
        {"run": "touch a.txt", "usage": USAGE},
        {"run": "touch b.txt", "usage": USAGE},
        {"text": "As you like.", "usage": USAGE},
        {"text": "Without b then.", "match": "Only the first", "usage": USAGE},
    ]
    ask = {"permissions": {"mode": "ask", "rules": []}, "mode": "default"}
    story = desk.start(desk.open(turns, **ask))
    one = until_asked(desk, story, 1)
    assert (one.tool, one.subject, one.state) == ("execute", "touch a.txt", Asking.WAITING)
    permissions.answer(one, allow=True, actor=ALICE)
    permissions.answer(until_asked(desk, story, 2), allow=False, actor=ALICE, reason="Only the first.")
    story = desk.until_stage(story, "done")
    assert newest(desk, story).outcome == "done" and desk.fake.left("desk") == 0
    assert (desk.repo / "a.txt").exists() and not (desk.repo / "b.txt").exists()


@pytest.mark.long
@pytest.mark.needs_gemini
def test_a_refused_key_blocks_the_story_with_the_remedy(desk: Desk) -> None:
    project = desk.open(["never said"], value="sk-test-wrong-wrong-wrong-wrong")
    story = desk.until_stage(desk.start(project), "blocked")
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.retries, story.crashes) == ("auth", 0, 0)
    assert "check the agent's credential" in story.reason


ENDLESS = "setsid nohup sleep 600 >/dev/null 2>&1 & echo half > half.txt; sleep 600"


@pytest.mark.long
@pytest.mark.needs_gemini
def test_a_stop_in_the_middle_of_a_tool_leaves_nothing_behind_and_keeps_the_work(desk: Desk) -> None:
    story = desk.start(desk.open([{"run": ENDLESS, "usage": USAGE}]))
    desk.until_file(story, "half.txt")
    pool.stop_story(story, actor=ALICE)
    session = desk.shop.until_ended(newest(desk, story))
    desk.shop.settled()
    assert session.outcome == "stopped"
    control = conf.control_path(session.project.key)
    assert git("show", f"{session.saved}:half.txt", cwd=control) == "half"


@pytest.mark.long
@pytest.mark.needs_gemini
def test_a_program_that_is_killed_is_a_crash_and_the_conversation_goes_on(desk: Desk) -> None:
    turns: list[dict[str, Any]] = [
        {"run": ENDLESS, "usage": USAGE},
        {"write": {"path": "two.txt", "content": "two\n"}, "match": "ended early", "usage": USAGE},
        {"text": "Done.", "usage": USAGE},
    ]
    story = desk.start(desk.open(turns))
    desk.until_file(story, "half.txt")
    for one in marked_processes(MARKER, newest(desk, story).key):
        words = Path(f"/proc/{one.pid}/cmdline").read_bytes().split(b"\0")
        if words[0] == os.fsencode(str(find_node())):
            os.kill(one.pid, signal.SIGKILL)
    story = desk.until_stage(story, "done")
    first, second = desk.shop.sessions(story)
    assert (first.outcome, second.outcome, second.resumed) == ("crashed", "done", True)
    assert "ended by signal SIGKILL" in first.reason
    assert (desk.repo / "half.txt").exists() and (desk.repo / "two.txt").exists()


@pytest.mark.long
@pytest.mark.needs_gemini
def test_a_person_interrupts_it_with_other_words_in_the_same_session(desk: Desk) -> None:
    turns: list[dict[str, Any]] = [
        {"run": ENDLESS, "usage": USAGE},
        {"write": {"path": "other.txt", "content": "other\n"}, "match": "Do the other", "usage": USAGE},
        {"text": "Done.", "usage": USAGE},
    ]
    story = desk.start(desk.open(turns))
    desk.until_file(story, "half.txt")
    talking.interrupt(newest(desk, story), actor=ALICE, text="Do the other thing.")
    story = desk.until_stage(story, "done")
    (session,) = desk.shop.sessions(story)
    assert session.outcome == "done" and (desk.repo / "other.txt").exists()
