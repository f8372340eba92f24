"""`./huskies session list|show|output|wait|message|interrupt|answer`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from agents import shapes
from agents.commands import Shapes, WatchingCommand
from agents.models import PermissionRequest, Session
from agents.models.permission import Said
from agents.services import permissions, talking, telling
from agents.states import State
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.exceptions import NotFound
from pipeline.services.stories import find_story


class Command(WatchingCommand):
    help = "List and show sessions, read or follow their output, wait for their end; speak to agents and answer what they ask."

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
        said = self.verb(
            "message", self.message, "say something to the agent; an ended session's goes on with it"
        )
        said.add_argument("session", type=int)
        self.with_text(said)
        stop = self.verb(
            "interrupt", self.interrupt, "end the turn under way: with words it goes on with them"
        )
        stop.add_argument("session", type=int)
        stop.add_argument("--text", default="", help="what it is to do instead; without, the story is held")
        answer = self.verb("answer", self.answer, "allow or deny what the agent asks for (`show` lists it)")
        answer.add_argument("session", type=int)
        answer.add_argument("request", type=int, help="its number")
        answer.add_argument("decision", choices=["allow", "deny"])
        answer.add_argument("--for-session", action="store_true", help="the same call is not asked for again")
        answer.add_argument("--reason", default="", help="which the agent is told when it is denied")

    def with_text(self, parser: ArgumentParser) -> None:
        parser.add_argument("--text", help="the words; without it they are read from standard input")

    def list(self, options: dict[str, Any]) -> Shapes:
        rows = Session.objects.select_related("story__project", "agent", "credential").order_by("-id")
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
        row = find_session(options["session"])
        shape = shapes.session(row) | {"asks": [shapes.request(one) for one in row.requests.order_by("id")]}
        for one in shape["asks"]:
            if one["state"] == "waiting":
                self.say(
                    f"asks: request {one['id']}: {one['tool']} {one['subject']} (until {one['deadline']})"
                )
        for name, value in shape.items():
            if value is not None and name != "asks":
                self.say(f"{name.replace('_', ' ')}: {value}")
        return shape

    def output(self, options: dict[str, Any]) -> Shapes | None:
        return self.show_output(find_session(options["session"]), options)

    def message(self, options: dict[str, Any]) -> dict[str, Any]:
        text = options["text"] if options["text"] is not None else sys.stdin.read()
        row = find_session(options["session"])
        said, queued = talking.message(row, text, actor=OPERATOR_ON_HOST)
        said.refresh_from_db()
        self.say(
            f"{row.agent.name} goes on with it once it can: {queued}."
            if queued
            else f"{row.agent.name} has it."
            if said.state == Said.TOLD
            else f"It waits until it can be passed on to {row.agent.name}."
        )
        return {"session": row.pk, "message": said.pk, "state": said.state, "queued": queued or None}

    def interrupt(self, options: dict[str, Any]) -> dict[str, Any]:
        row = find_session(options["session"])
        how = talking.interrupt(row, actor=OPERATOR_ON_HOST, text=options["text"])
        self.say(f"{row.agent.name} is interrupted: {how}.")
        return {"session": row.pk, "then": how}

    def answer(self, options: dict[str, Any]) -> dict[str, Any]:
        session = find_session(options["session"])
        row = PermissionRequest.objects.filter(session=session, pk=options["request"]).first()
        if row is None:
            raise NotFound(
                f"Session {session.pk} has no request {options['request']}. `session show {session.pk}` lists what it asks."
            )
        row.session = session
        permissions.answer(
            row,
            allow=options["decision"] == "allow",
            for_session=options["for_session"],
            reason=options["reason"],
            actor=OPERATOR_ON_HOST,
        )
        telling.tell(session.pk)
        self.say(f"{session.agent.name} is told: {row.get_state_display()}.")
        return shapes.request(row)

    def wait(self, options: dict[str, Any]) -> dict[str, Any]:
        return self.wait_for(find_session(options["session"]), options)


def find_session(pk: int) -> Session:
    rows = Session.objects.select_related("story__project", "project", "agent", "credential")
    session = rows.filter(pk=pk).first()
    if session is None:
        raise NotFound(f"There is no session {pk}. `session list` shows those there are.")
    return session
