"""A story worked by a real agent program, sent to one scenario of the fake provider."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from agents.models import Agent, LedgerRow
from agents.services import credentials, pool
from pipeline import conf
from pipeline.models import Project, Story
from tests import factories
from tests.e2e.shop import CHECK, Shop
from tests.factories import ALICE
from tests.fake_provider import FakeProvider

KEY = "sk-test-0123456789abcdef"


class Desk:
    """A project whose coder is `runtime`; `suffix` ends the base URL as the program wants it; `entry` is added to the coder's."""

    def __init__(
        self, shop: Shop, fake: FakeProvider, runtime: str, model: str, suffix: str = "", **entry: Any
    ) -> None:
        self.shop, self.fake, self.runtime, self.model = shop, fake, runtime, model
        self.suffix, self.entry = suffix, entry

    def open(self, turns: list[Any], *, value: str = KEY, **entry: Any) -> Project:
        url = self.fake.add_scenario("desk", {"turns": turns, "api_key": KEY})
        credentials.add_credential("team", value=value, base_urls=[self.fake.url()], actor=ALICE)
        agent = {
            "name": "coder-1",
            "runtime": self.runtime,
            "model": self.model,
            "base_url": url + self.suffix,
            "credential": "team",
        }
        text = json.dumps({"agents": [agent], "gate": {"command": "sh check.sh"}, "max_retries": 1})
        self.repo = self.shop.repository({".huskies/project.yaml": text, "check.sh": CHECK})
        project = self.shop.add(self.repo)
        coder = Agent.objects.get(name="coder-1", configured=True)
        assert coder.entry["credential"] == "team", project.reason
        coder.entry |= {**self.entry, **entry}
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

    def until_file(self, story: Story, name: str) -> None:
        """Until the working copy of the story's session holds this file."""
        (session,) = self.shop.sessions(story)
        place = conf.copy_path(session.key) / name
        self.shop.server.until(place.exists, what=f"the file {name}", seconds=90)


def booked(story: Story) -> Decimal:
    rows = LedgerRow.objects.filter(session__story=story)
    return sum(rows.values_list("cost_usd", flat=True), Decimal())
