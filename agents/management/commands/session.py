"""`./huskies session list|show|output|wait`."""

from __future__ import annotations

from typing import Any

from agents import shapes
from agents.commands import Shapes, WatchingCommand
from agents.models import Session
from agents.states import State
from pipeline.exceptions import NotFound
from pipeline.services.stories import find_story


class Command(WatchingCommand):
    help = "List and show sessions, read or follow their output, wait for their end."

    def add_verbs(self) -> None:
        listed = self.verb("list", self.list, "the sessions, newest first")
        listed.add_argument("--story", help="only those of a story: N or PROJECT/N")
        listed.add_argument("--live", action="store_true", help="only those that are not over")
        listed.add_argument("--limit", type=int, default=100)
        show = self.verb("show", self.show, "one session")
        show.add_argument("session", type=int)
        output = self.verb("output", self.output, "what the agent did and said; with --follow until it ends")
        output.add_argument("session", type=int)
        self.with_output(output)
        wait = self.verb("wait", self.wait, "block until it ended and its gate ran; says how it went")
        wait.add_argument("session", type=int)
        self.with_timeout(wait)

    def list(self, options: dict[str, Any]) -> Shapes:
        rows = Session.objects.select_related("story__project", "agent").order_by("-id")
        if options["story"]:
            rows = rows.filter(story=find_story(options["story"]))
        if options["live"]:
            rows = rows.exclude(state=State.ENDED)
        found = [shapes.session(row) for row in rows[: max(options["limit"], 0)]]
        self.table(
            ["SESSION", "STORY", "AGENT", "STATE", "OUTCOME", "COST"],
            [[s["id"], s["story"], s["agent"], s["state"], s["outcome"] or "", s["cost_usd"]] for s in found],
            "There are no sessions.",
        )
        return found

    def show(self, options: dict[str, Any]) -> dict[str, Any]:
        shape = shapes.session(find_session(options["session"]))
        for name, value in shape.items():
            if value is not None:
                self.say(f"{name.replace('_', ' ')}: {value}")
        return shape

    def output(self, options: dict[str, Any]) -> Shapes | None:
        return self.show_output(find_session(options["session"]), options)

    def wait(self, options: dict[str, Any]) -> dict[str, Any]:
        return self.wait_for(find_session(options["session"]), options)


def find_session(pk: int) -> Session:
    session = Session.objects.select_related("story__project", "agent").filter(pk=pk).first()
    if session is None:
        raise NotFound(f"There is no session {pk}. `session list` shows those there are.")
    return session
