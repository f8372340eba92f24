"""Stories that are worked from a start to their end by scripted coders, in the test's own process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agents.models import Session
from agents.services import pool
from pipeline import conf
from pipeline.models import Process, Project, Story
from pipeline.processes.identity import marked_processes
from pipeline.processes.runfolder import MARKER
from tests import factories
from tests.factories import ALICE
from tests.logs import events
from tests.pipeline.worlds import World

Step = dict[str, Any]

CODER = "  - {{name: coder-{0}, role: coder, runtime: scripted}}\n"
CHECK = "if test -e broken; then echo the button is missing; exit 1; fi; echo all is well\n"
GO = ".git/go"
"""A script waits for this file of its copy: no commit ever holds it, and the confined agent sees it."""


def project_file(coders: int = 1, **more: Any) -> str:
    lines = "".join(CODER.format(number) for number in range(1, coders + 1))
    rest = "".join(f"{key}: {json.dumps(value)}\n" for key, value in more.items())
    return f"agents:\n{lines}gate:\n  command: sh check.sh\n{rest}"


def script(*turns: list[Step]) -> str:
    """A story's description that holds what its coder does, turn by turn."""
    return f"Do it.\n\n```script\n{json.dumps({'turns': list(turns)})}\n```\n"


def write(path: str, content: str = "new\n") -> Step:
    return {"write": {"path": path, "content": content}}


def wait_for(file: str = GO) -> Step:
    return {"wait_for": {"file": file, "timeout": 60}}


class Shop(World):
    def open(self, coders: int = 1, files: dict[str, str] | None = None, **more: Any) -> Project:
        """Register a repository whose file names the coders; `self.repo` is where a person has it checked out."""
        own = {
            ".huskies/project.yaml": project_file(coders, **more),
            "check.sh": CHECK,
            "README.md": "hello\n",
            **(files or {}),
        }
        self.repo: Path = self.repository(own)
        return self.add(self.repo)

    def start(self, project: Project, *turns: list[Step], **more: Any) -> Story:
        story = factories.story(project, description=script(*turns), **more)
        pool.start_story(story, actor=ALICE)
        return self.fresh(story)

    def fresh(self, story: Story) -> Story:
        return Story.objects.select_related("project").get(pk=story.pk)

    def sessions(self, story: Story) -> list[Session]:
        return list(Session.objects.filter(story=story).select_related("process", "agent").order_by("pk"))

    def until_line(self, story: Story, text: str, seconds: float = 30) -> Session:
        """Until the agent of the story's newest session said this; the runner's own notes are not its words."""

        def said() -> bool:
            newest = self.sessions(story)[-1]
            return any(
                text in json.dumps(event.body) for event in events(newest.process) if event.kind != "note"
            )

        self.server.until(said, what=f"{text!r} of {story.label}", seconds=seconds)
        return self.sessions(story)[-1]

    def until_ended(self, session: Session) -> Session:
        def ended() -> bool:
            session.refresh_from_db()
            return session.state == "ended"

        self.server.until(ended, what=f"the end of session {session.pk}", seconds=30)
        return session

    def go(self, session: Session) -> None:
        (conf.copy_path(session.key) / GO).touch()

    def process(self, session: Session) -> Process:
        """The agent's own process, as it is now."""
        return Process.objects.get(pk=session.process_id or 0)

    def exit_of(self, process: Process) -> dict[str, Any]:
        return Process.objects.get(pk=process.pk).exit or {}

    def settled(self) -> None:
        """Nothing runs, no slot is held, no copy is left, and no process carries a marker of ours."""
        self.server.idle()
        assert not Session.objects.live().exists()
        assert list((conf.home() / "copies").iterdir()) == []
        keys = set(Session.objects.values_list("key", flat=True))
        assert [one for one in marked_processes(MARKER) if one.value in keys] == []
