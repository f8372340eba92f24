"""The real Claude Code program works a story against the fake provider: what the provider does, and what becomes of the story."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Agent, Credential, LedgerRow
from agents.services import credentials, pool
from pipeline.models import GateRun, LogEvent, Project, Story
from tests import factories
from tests.e2e.shop import CHECK, Shop
from tests.factories import ALICE, git
from tests.fake_provider import FakeProvider

pytestmark = [pytest.mark.needs_claude, pytest.mark.needs_bubblewrap, pytest.mark.timeout(180)]

KEY = "sk-ant-test-0123456789abcdef"
USAGE = {"input": 1000, "output": 100}


@pytest.fixture
def fake(claude_program: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    monkeypatch.setenv("HUSKIES_CLAUDE", str(claude_program))
    with FakeProvider([]) as running:
        yield running
        assert running.problems == []


class Desk:
    """A project whose coder is the real program, sent to one scenario of the fake provider."""

    def __init__(self, shop: Shop, fake: FakeProvider) -> None:
        self.shop, self.fake = shop, fake

    def open(self, turns: list[Any], *, value: str = KEY, **entry: Any) -> Project:
        url = self.fake.add_scenario("desk", {"turns": turns, "api_key": KEY})
        credentials.add_credential("team", value=value, base_urls=[self.fake.url()], actor=ALICE)
        agent = {
            "name": "coder-1",
            "runtime": "claude-code",
            "model": "sonnet",
            "base_url": url,
            "credential": "team",
        }
        text = json.dumps({"agents": [agent], "gate": {"command": "sh check.sh"}, "max_retries": 1})
        self.repo = self.shop.repository({".huskies/project.yaml": text, "check.sh": CHECK})
        project = self.shop.add(self.repo)
        coder = Agent.objects.get(name="coder-1", configured=True)
        assert coder.entry["credential"] == "team", project.reason
        coder.entry |= {"provider_retries": 1, **entry}
        coder.save()
        return project

    def start(self, project: Project) -> Story:
        story = factories.story(project, title="Add a button")
        assert pool.start_story(story, actor=ALICE).session is not None
        return story

    def until_waits(self, story: Story) -> Story:
        """Until its session is over and the story says what it waits for."""
        self.shop.server.until(
            lambda: self.shop.fresh(story).not_before, what="a story that waits", seconds=90
        )
        self.shop.server.idle()
        return self.shop.fresh(story)

    def until_stage(self, story: Story, stage: str) -> Story:
        self.shop.server.until(
            lambda: self.shop.fresh(story).stage == stage, what=f"stage {stage}", seconds=120
        )
        self.shop.settled()
        return self.shop.fresh(story)


@pytest.fixture
def desk(shop: Shop, fake: FakeProvider) -> Desk:
    return Desk(shop, fake)


def booked(story: Story) -> Decimal:
    return sum(LedgerRow.objects.filter(session__story=story).values_list("cost_usd", flat=True), Decimal())


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
    last = json.dumps(desk.fake.requests("model")[-1]["body"]["messages"])
    assert "Add a button" in last and "the button is missing" in last
    assert desk.fake.left("desk") == 0
    assert git("rev-parse", "main", cwd=desk.repo) == story.landed
    assert git("log", "-1", "--format=%s%n%(trailers:key=Agent,valueonly)", cwd=desk.repo).split("\n")[:2] == [
        "Add a button (#1)", "coder-1",
    ]  # fmt: skip
    assert sorted(git("ls-files", cwd=desk.repo).split()) == [
        ".huskies/project.yaml", "button.txt", "check.sh", "more.txt",
    ]  # fmt: skip
    assert LedgerRow.objects.exclude(request_id="").values("request_id").distinct().count() == 5
    assert booked(story) == first.cost_usd + second.cost_usd > 0
    for session in (first, second):
        assert session.reported_cost_usd == pytest.approx(session.cost_usd)
        assert KEY not in json.dumps(
            list(LogEvent.objects.filter(process=session.process).values_list("body", flat=True))
        )


def test_a_refused_key_blocks_the_story_with_the_remedy_and_is_not_tried_again(desk: Desk) -> None:
    project = desk.open(["never said"], value="sk-ant-test-wrong-wrong-wrong-wrong")
    story = desk.until_stage(desk.start(project), "blocked")
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.retries, story.crashes) == ("auth", 0, 0)
    assert "check the agent's credential" in story.reason
    assert "check the agent's credential" in Credential.objects.get().paused_for
    other = factories.story(project)
    assert "credential team is paused" in pool.start_story(other, actor=ALICE).queued


@pytest.mark.parametrize(
    ("error", "outcome"),
    [({"status": 429, "retry_after": 3600}, "rate_limited"), ({"status": 529}, "overloaded")],
    ids=["429", "529"],
)
def test_a_limit_that_is_left_after_its_own_tries_makes_the_story_wait(
    desk: Desk, error: dict[str, Any], outcome: str
) -> None:
    story = desk.until_waits(desk.start(desk.open([{"error": error, "repeat": 9}])))
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.stage, story.retries, story.crashes) == (outcome, "coding", 0, 0)
    assert "It goes on by itself at" in story.waiting_for
    assert story.not_before is not None and story.not_before > timezone.now()
    assert len(desk.fake.requests("model")) <= 2
    desk.shop.server.step()
    assert len(desk.shop.sessions(story)) == 1


def test_a_stream_that_breaks_is_gone_on_with(desk: Desk) -> None:
    turns = [{"text": "some words", "drop": True}, {"write": {"path": "a.txt", "content": "x\n"}}, "Done."]
    story = desk.until_stage(desk.start(desk.open(turns)), "done")
    (session,) = desk.shop.sessions(story)
    assert (session.outcome, story.crashes) == ("done", 0)
    # Whether it says so or not: it asked once more, and the script was played to its end.
    assert (len(desk.fake.requests("model")), desk.fake.left("desk")) == (3, 0)


def test_a_provider_that_hangs_ends_the_session_and_the_conversation_goes_on(desk: Desk) -> None:
    turns = [
        {"run": "echo one > one.txt", "usage": USAGE},
        {"hang": 600},
        {"write": {"path": "two.txt", "content": "two\n"}, "match": "one.txt|.", "usage": USAGE},
        "Done.",
    ]
    story = desk.until_stage(desk.start(desk.open(turns, inactivity_timeout=2.0)), "done")
    first, second = desk.shop.sessions(story)
    assert (first.outcome, second.outcome, story.retries) == ("hung", "done", 0)
    assert (second.conversation, second.resumed, second.began_at_commit) == (
        first.conversation,
        True,
        first.saved,
    )
    # What the killed run had used is booked, although the program never said its sums.
    assert first.cost_usd > 0 and first.reported_cost_usd is None
    assert booked(story) == first.cost_usd + second.cost_usd
    assert (desk.repo / "one.txt").exists() and (desk.repo / "two.txt").exists()
