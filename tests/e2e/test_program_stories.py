"""The real agent programs work a story against the stand-in: what the provider does, and what becomes of the story."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Credential, LedgerRow
from agents.services import pool
from agents.standin import StandIn
from pipeline import conf
from pipeline.models import GateRun, Process
from tests import factories
from tests.agent_programs import (
    ANTHROPIC_API,
    APIS,
    CLAUDE,
    CODEX,
    GEMINI,
    GEMINI_API,
    OPENAI_API,
    OPENCODE,
    QWEN,
    AgentProgram,
    programs,
)
from tests.e2e.desk import KEY, Desk, booked
from tests.e2e.shop import Shop
from tests.factories import ALICE, git
from tests.logs import words

pytestmark = pytest.mark.timeout(240)

USAGE = {"input": 1000, "output": 100}


@pytest.fixture
def desk(shop: Shop, program: AgentProgram, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    if program.variable:
        monkeypatch.setenv(program.variable, str(program.find()))
    with StandIn([]) as fake:
        yield Desk(shop, fake, program)
        assert fake.problems == []


@programs(CLAUDE, CODEX, GEMINI, OPENAI_API, long=[QWEN, OPENCODE, GEMINI_API, ANTHROPIC_API])
def test_it_edits_fails_the_gate_once_is_resumed_with_the_failure_and_lands(desk: Desk) -> None:
    turns = [
        {"run": "echo red > button.txt && touch broken && git add -A && git commit -qm half", "usage": USAGE},
        {"text": "I am done.", "usage": USAGE},
        {"run": "rm broken", "match": "the button is missing", "usage": USAGE},
        {"write": {"path": "more.txt", "content": "more\n"}, "usage": USAGE},
        {"text": "Now I am done.", "usage": USAGE},
    ]
    story = desk.until_stage(desk.start(desk.open(turns)), "done")
    first, second = desk.shop.sessions(story)
    assert (first.outcome, second.outcome, story.retries, story.crashes) == ("done", "done", 1, 0)
    assert (second.conversation, second.resumed, second.sandbox) == (first.conversation, True, "bubblewrap")
    assert [run.verdict for run in GateRun.objects.order_by("pk")] == ["failed", "passed", "passed"]
    # The provider was told the whole conversation: the story's first prompt, then the gate's words.
    assert "Add a button" in desk.said() and "the button is missing" in desk.said()
    assert desk.fake.left("desk") == 0
    assert git("rev-parse", "main", cwd=desk.repo) == story.landed
    assert git("log", "-1", "--format=%s%n%(trailers:key=Agent,valueonly)", cwd=desk.repo).split("\n")[:2] == [
        "Add a button (#1)", "coder-1",
    ]  # fmt: skip
    assert sorted(git("ls-files", cwd=desk.repo).split()) == [
        ".huskies/project.yaml", "button.txt", "check.sh", "more.txt",
    ]  # fmt: skip
    # Some programs' own sums count the whole conversation; ours count each request once.
    rows = LedgerRow.objects.exclude(request_id="")
    assert rows.values("request_id").distinct().count() == 5
    assert (first.input_tokens, second.input_tokens) == (2000, 3000)
    assert booked(story) == first.cost_usd + second.cost_usd > 0
    for session in (first, second):
        if desk.program == CLAUDE:
            assert session.reported_cost_usd == pytest.approx(session.cost_usd)
        assert KEY not in words(session.process)


@programs(CLAUDE, CODEX, GEMINI, long=[QWEN, OPENCODE, *APIS])
def test_a_refused_key_blocks_the_story_with_the_remedy_and_is_not_tried_again(desk: Desk) -> None:
    project = desk.open(["never said"], value="sk-test-wrong-wrong-wrong-wrong")
    story = desk.until_stage(desk.start(project), "blocked")
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.retries, story.crashes) == ("auth", 0, 0)
    assert "check the agent's credential" in story.reason
    assert "check the agent's credential" in Credential.objects.get().paused_for
    other = factories.story(project)
    assert "credential team is paused" in pool.start_story(other, actor=ALICE).queued


def until_limited(desk: Desk, error: dict[str, Any], kind: str = "api_key") -> datetime:
    """When the story goes on that met a limit: it waits, charged with nothing, and is not tried before."""
    story = desk.until_waits(desk.start(desk.open([{"error": error, "repeat": 99}], kind=kind)))
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.stage, story.retries, story.crashes) == ("rate_limited", "coding", 0, 0)
    assert story.not_before is not None and story.not_before > timezone.now()
    assert "It goes on by itself at" in story.waiting_for
    desk.shop.server.step()
    assert len(desk.shop.sessions(story)) == 1
    return story.not_before


def limit_until(program: AgentProgram, resets_at: int) -> tuple[str, dict[str, Any]]:
    """How the program's provider tells when a limit is over, and to what kind of credential: Anthropic to subscribers alone."""
    if program == CLAUDE:
        headers = {
            "anthropic-ratelimit-unified-status": "rejected",
            "anthropic-ratelimit-unified-representative-claim": "five_hour",
            "anthropic-ratelimit-unified-reset": resets_at,
        }
        return "oauth_token", {"status": 429, "headers": headers}
    if program == CODEX:
        said = {
            "type": "usage_limit_reached",
            "message": "Reached",
            "plan_type": "plus",
            "resets_at": resets_at,
        }
        return "api_key", {"status": 429, "body": {"error": said}}
    return "api_key", {"status": 429, "retry_after": 7200}


@programs(CLAUDE, CODEX, GEMINI, long=APIS)
def test_a_limit_with_a_reset_time_makes_the_story_wait_for_it(desk: Desk) -> None:
    resets_at = int(time.time()) + 7200
    kind, error = limit_until(desk.program, resets_at)
    goes_on = until_limited(desk, error, kind)
    # Codex tells it to the minute; the others in seconds from when they met it.
    assert -60 <= goes_on.timestamp() - resets_at <= 120
    if desk.program == CODEX:
        assert len(desk.fake.requests("model")) == 1


@programs(CLAUDE, long=[QWEN, OPENCODE])
def test_a_limit_that_is_over_in_an_hour_is_not_waited_for_by_the_program(desk: Desk) -> None:
    until_limited(desk, {"status": 429, "retry_after": 3600})
    assert len(desk.fake.requests("model")) <= 2


@programs(CLAUDE, CODEX, long=[GEMINI, QWEN, OPENCODE, *APIS])
def test_an_overload_that_is_left_after_its_own_tries_makes_the_story_wait(desk: Desk) -> None:
    story = desk.until_waits(
        desk.start(desk.open([{"error": {"status": 529 if desk.program == CLAUDE else 503}, "repeat": 99}]))
    )
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.stage, story.retries, story.crashes) == ("overloaded", "coding", 0, 0)
    assert "It goes on by itself at" in story.waiting_for
    assert story.not_before is not None and story.not_before > timezone.now()
    desk.shop.server.step()
    assert len(desk.shop.sessions(story)) == 1
    assert len(desk.fake.requests("model")) <= (4 if desk.program in (CODEX, QWEN, OPENCODE) else 2)


@programs(CLAUDE, CODEX, long=[QWEN, OPENCODE, *APIS])
def test_a_stream_that_breaks_is_gone_on_with(desk: Desk) -> None:
    turns = [{"text": "some words", "drop": True}, {"write": {"path": "a.txt", "content": "x\n"}}, "Done."]
    story = desk.until_stage(desk.start(desk.open(turns)), "done")
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.crashes) == ("done", 0)
    # Whether it says so or not: it asked once more, and the script was played to its end.
    assert (len(desk.fake.requests("model")), desk.fake.left("desk")) == (3, 0)


@programs(GEMINI)
def test_a_stream_that_breaks_ends_the_session_of_a_program_that_does_not_try_again(desk: Desk) -> None:
    story = desk.until_waits(desk.start(desk.open([{"text": "some words", "drop": True}])))
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.stage, story.retries, story.crashes) == ("overloaded", "coding", 0, 0)


@programs(CLAUDE, CODEX, GEMINI, long=[QWEN, OPENCODE, *APIS])
def test_a_provider_that_hangs_ends_the_session_and_the_conversation_goes_on(desk: Desk) -> None:
    turns = [
        {"run": "echo one > one.txt", "usage": USAGE},
        {"hang": 600},
        {"write": {"path": "two.txt", "content": "two\n"}, "usage": USAGE},
        {"text": "Done.", "usage": USAGE},
    ]
    project = desk.open(turns, inactivity_timeout=desk.program.silence)
    story = desk.until_stage(desk.start(project), "done")
    first, second = desk.shop.sessions(story)
    assert (first.outcome, second.outcome, story.retries) == ("hung", "done", 0)
    assert (second.conversation, second.resumed, second.began_at_commit) == (
        first.conversation,
        True,
        first.saved,
    )
    # What the run had used is booked to it, whether the program could still say its sums or not, and not again to the other.
    assert (first.input_tokens, second.input_tokens) == (1000, 2000)
    assert first.reported_cost_usd in (None, first.cost_usd)
    assert booked(story) == first.cost_usd + second.cost_usd
    assert (desk.repo / "one.txt").exists() and (desk.repo / "two.txt").exists()


def told_in_mid_tool(desk: Desk) -> int:
    """Tokens: opencode alone tells those of a request when its tools are done."""
    return 0 if desk.program == OPENCODE else 1000


ENDLESS = "setsid nohup sleep 600 >/dev/null 2>&1 & echo half > half.txt; {more} sleep 600"


@programs(CODEX, GEMINI, long=[CLAUDE, QWEN, OPENCODE, *APIS])
def test_a_stop_in_the_middle_of_a_tool_leaves_nothing_behind_and_keeps_the_work(desk: Desk) -> None:
    story = desk.start(desk.open([{"run": ENDLESS.format(more=""), "usage": USAGE}]))
    desk.until_file(story, "half.txt")
    pool.stop_story(story, actor=ALICE)
    session = desk.shop.until_ended(desk.shop.sessions(story)[0])
    desk.shop.settled()  # no process of it is left
    assert (session.outcome, session.input_tokens) == ("stopped", told_in_mid_tool(desk))
    control = conf.control_path(session.project.key)
    assert git("show", f"{session.saved}:half.txt", cwd=control) == "half"


@programs(CLAUDE, long=[CODEX, GEMINI, QWEN, OPENCODE, *APIS])
def test_a_program_that_is_killed_in_the_middle_of_a_tool_leaves_nothing_behind_and_is_resumed(
    desk: Desk,
) -> None:
    turns = [
        {"run": ENDLESS.format(more="touch broken;"), "usage": USAGE},
        {"run": "rm broken", "match": "ended early", "usage": USAGE},
        {"text": "Done.", "usage": USAGE},
    ]
    story = desk.start(desk.open(turns))
    desk.until_file(story, "broken")
    desk.kill_program(story)
    killed = desk.shop.until_ended(desk.shop.sessions(story)[0])
    assert (killed.outcome, killed.input_tokens) == ("crashed", told_in_mid_tool(desk))
    assert "SIGKILL" in killed.reason
    story = desk.until_stage(story, "done")
    first, second = desk.shop.sessions(story)
    assert (second.outcome, second.resumed, second.conversation) == ("done", True, first.conversation)
    assert (second.input_tokens, second.began_at_commit) == (2000, first.saved)
    assert "Add a button" in desk.said() and "ended early" in desk.said()
    assert (desk.repo / "half.txt").exists() and not (desk.repo / "broken").exists()
    assert not Process.objects.filter(state="running").exists()
