"""A served project and its stories, for the cases that start sessions."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agents.models import Session
from agents.services import pool
from pipeline import conf
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.exceptions import NothingRunning
from pipeline.models import Process, Project, Story
from pipeline.services import projects, stories
from tests.benchmarks.floors import SCRIPTED, repository
from tests.benchmarks.measure import wait_for
from tests.benchmarks.server import Person, Server

HANG: list[dict[str, Any]] = [{"hang": True}]


class World:
    """`up` with one project of 50 files and scripted coders."""

    def __init__(self, coders: int) -> None:
        self.server = Server(conf.home())
        self.server.start()
        self.person = Person(self.server)
        self.project = self.add("bench", coders)

    def add(self, name: str, coders: int, runtime: str = SCRIPTED) -> Project:
        """A project of that many coders, ready."""
        source = repository(conf.home().with_name(f"{name}-repository"), coders, runtime=runtime)
        project = projects.add_project(str(source), name=name, actor=OPERATOR_ON_HOST)
        wait_for(lambda: self._ready(project), "the project's first fetch")
        return project

    def _ready(self, project: Project) -> bool:
        project.refresh_from_db()
        if project.state == "refused":
            raise RuntimeError(project.reason)
        proposed = projects.proposed_version(project)
        if proposed is not None:
            projects.approve_version(proposed, actor=OPERATOR_ON_HOST)
        return project.state == "ready" and project.agents.filter(configured=True).exists()

    def story(self, script: list[dict[str, Any]] = HANG, project: Project | None = None) -> Story:
        text = f"```script\n{json.dumps({'turns': [script]})}\n```\n"
        return stories.create_story(
            project or self.project, title="Measure", description=text, actor=OPERATOR_ON_HOST
        )

    def start(self, story: Story) -> Session:
        """A start without HTTP; the queue launches it."""
        started = pool.start_story(story, actor=OPERATOR_ON_HOST)
        assert started.session is not None, started.queued
        return started.session

    def started(self, script: list[dict[str, Any]], number: int) -> list[Session]:
        """That many sessions, running."""
        sessions = [self.start(self.story(script)) for _ in range(number)]
        wait_for(lambda: all(self.running(one) for one in sessions), f"{number} running sessions")
        return sessions

    def running(self, session: Session) -> bool:
        session.refresh_from_db()
        return session.state == "running"

    def end(self, *ended: Story) -> None:
        """Stop what runs on the stories and put them away, so that the next round finds a quiet server."""
        for story in ended:
            with contextlib.suppress(NothingRunning):
                pool.stop_story(story, actor=OPERATOR_ON_HOST)
        wait_for(lambda: not Process.objects.unhandled().exists(), "a quiet server", pause=0.02)
        for story in ended:
            story.refresh_from_db()
            stories.perform(story, "archive", actor=OPERATOR_ON_HOST)
        wait_for(lambda: not Process.objects.unhandled().exists(), "a quiet server", pause=0.02)

    def log(self, session: Session) -> Path:
        return conf.runs() / session.key / "log"


@contextlib.contextmanager
def served(coders: int) -> Iterator[World]:
    world = None
    try:
        world = World(coders)
        yield world
    finally:
        if world is not None:
            world.server.close()
