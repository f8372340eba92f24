"""The real Gemini CLI works a story against the fake provider: what the provider does, and what becomes of the story."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.models import Credential, LedgerRow
from agents.services import pool
from pipeline import conf
from pipeline.models import GateRun
from tests.e2e.desk import Desk, booked
from tests.e2e.shop import Shop
from tests.factories import ALICE, git
from tests.fake_provider import FakeProvider

pytestmark = [
    pytest.mark.needs_gemini,
    pytest.mark.needs_bubblewrap,
    pytest.mark.timeout(240),
    pytest.mark.on_sqlite,
]

USAGE = {"input": 1000, "output": 100}


@pytest.fixture
def desk(shop: Shop, gemini_program: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("HUSKIES_GEMINI", str(gemini_program))
    with FakeProvider([]) as fake:
        yield Desk(shop, fake, "gemini-cli", "gemini-3.8-flash", provider_retries=1)
        assert fake.problems == []


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
    last = json.dumps(desk.fake.requests("model")[-1]["body"]["contents"])
    assert "Add a button" in last and "the button is missing" in last
    assert desk.fake.left("desk") == 0
    assert sorted(git("ls-files", cwd=desk.repo).split()) == [
        ".huskies/project.yaml", "button.txt", "check.sh", "more.txt",
    ]  # fmt: skip
    assert [row.input_tokens for row in LedgerRow.objects.order_by("pk")] == [1000] * 5
    assert booked(story) == first.cost_usd + second.cost_usd > 0


def test_a_refused_key_blocks_the_story_with_the_remedy(desk: Desk) -> None:
    project = desk.open(["never said"], value="sk-test-wrong-wrong-wrong-wrong")
    story = desk.until_stage(desk.start(project), "blocked")
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.retries, story.crashes) == ("auth", 0, 0)
    assert "check the agent's credential" in Credential.objects.get().paused_for


def test_a_limit_with_a_reset_time_makes_the_story_wait_for_it(desk: Desk) -> None:
    begun = time.time()
    error = {"status": 429, "retry_after": 7200}
    story = desk.until_waits(desk.start(desk.open([{"error": error, "repeat": 9}])))
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.stage, story.retries, story.crashes) == ("rate_limited", "coding", 0, 0)
    assert story.not_before is not None
    assert 7200 <= story.not_before.timestamp() - begun < 7500


def test_a_stream_that_breaks_ends_the_session_and_charges_nothing(desk: Desk) -> None:
    """It does not try again by itself."""
    story = desk.until_waits(desk.start(desk.open([{"text": "some words", "drop": True}])))
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.stage, story.retries, story.crashes) == ("overloaded", "coding", 0, 0)


def test_a_provider_that_hangs_ends_the_session_and_the_conversation_goes_on(desk: Desk) -> None:
    turns = [
        {"run": "echo one > one.txt", "usage": USAGE},
        {"hang": 600},
        {"write": {"path": "two.txt", "content": "two\n"}, "usage": USAGE},
        "Done.",
    ]
    story = desk.until_stage(desk.start(desk.open(turns, inactivity_timeout=20.0)), "done")
    first, second = desk.shop.sessions(story)
    assert (first.outcome, second.outcome, story.retries) == ("hung", "done", 0)
    assert (second.resumed, second.began_at_commit) == (True, first.saved)
    assert (first.input_tokens, second.input_tokens) == (1000, 1100)
    assert (desk.repo / "one.txt").exists() and (desk.repo / "two.txt").exists()


def test_a_stop_in_the_middle_of_a_tool_leaves_nothing_behind_and_keeps_the_work(desk: Desk) -> None:
    endless = "setsid nohup sleep 600 >/dev/null 2>&1 & echo half > half.txt; sleep 600"
    story = desk.start(desk.open([{"run": endless, "usage": USAGE}]))
    desk.until_file(story, "half.txt")
    pool.stop_story(story, actor=ALICE)
    session = desk.shop.until_ended(desk.shop.sessions(story)[0])
    desk.shop.settled()  # no process of it is left
    assert (session.outcome, session.input_tokens) == ("stopped", 1000)
    control = conf.control_path(session.project.key)
    assert git("show", f"{session.saved}:half.txt", cwd=control) == "half"
