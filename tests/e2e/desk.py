"""A story worked by a real agent program, sent to one scenario of the stand-in."""

from __future__ import annotations

import json
import os
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

from agents.models import Agent, LedgerRow
from agents.runtimes import RUNTIMES
from agents.services import credentials, pool
from agents.standin import StandIn
from pipeline import conf
from pipeline.models import Project, Story
from pipeline.processes.identity import marked_processes
from pipeline.processes.runfolder import MARKER
from tests import factories
from tests.agent_programs import AgentProgram
from tests.e2e.shop import CHECK, Shop
from tests.factories import ALICE

KEY = "sk-test-0123456789abcdef"


class Desk:
    """A project whose coder is a real agent program."""

    def __init__(self, shop: Shop, fake: StandIn, program: AgentProgram) -> None:
        self.shop, self.fake, self.program = shop, fake, program

    def open(self, turns: list[Any], *, kind: str = "api_key", value: str = KEY, **entry: Any) -> Project:
        url = self.fake.add_scenario("desk", {"turns": turns, "api_key": KEY})
        credentials.add_credential("team", kind=kind, value=value, base_urls=[self.fake.url()], actor=ALICE)
        agent = {
            "name": "coder-1",
            "runtime": self.program.runtime,
            "model": self.program.model,
            "base_url": url + self.program.suffix,
            "credential": "team",
        }
        text = json.dumps({"agents": [agent], "gate": {"command": "sh check.sh"}, "max_retries": 1})
        self.repo = self.shop.repository({".huskies/project.yaml": text, "check.sh": CHECK})
        project = self.shop.add(self.repo)
        coder = Agent.objects.get(name="coder-1", configured=True)
        assert coder.entry["credential"] == "team", project.reason
        coder.entry |= {**self.program.entry, **entry}
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

    def kill_program(self, story: Story) -> None:
        """The program alone, as the kernel does when memory is short: neither its runner nor its sandbox."""
        (session,) = self.shop.sessions(story)
        program = RUNTIMES[self.program.runtime].find().path
        assert program is not None
        for one in marked_processes(MARKER, session.key):
            words = Path(f"/proc/{one.pid}/cmdline").read_bytes().decode().split("\0")
            # Itself, or the node or Python that runs a script of its package.
            if any(Path(word).parent == program.parent for word in words[:4]):
                os.kill(one.pid, signal.SIGKILL)
                return
        raise AssertionError(f"no process of session {session.pk} runs {program}")

    def said(self) -> str:
        """The conversation as the provider was told it last."""
        return json.dumps(self.fake.requests("model")[-1]["body"])


def booked(story: Story) -> Decimal:
    rows = LedgerRow.objects.filter(session__story=story)
    return sum(rows.values_list("cost_usd", flat=True), Decimal())
