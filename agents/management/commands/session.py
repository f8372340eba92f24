"""`./huskies session list|show|output`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from agents import shapes
from agents.models import Session
from agents.states import State
from pipeline.commands import VerbCommand
from pipeline.exceptions import NotFound
from pipeline.models import LogEvent
from pipeline.services.stories import find_story

LOOK_SECONDS = 0.2
BATCH = 500


Shapes = list[dict[str, Any]]


class Command(VerbCommand):
    help = "List and show sessions, and read or follow their output."

    def add_verbs(self) -> None:
        listed = self.verb("list", self.list, "the sessions, newest first")
        listed.add_argument("--story", help="only those of a story: N or PROJECT/N")
        listed.add_argument("--live", action="store_true", help="only those that are not over")
        listed.add_argument("--limit", type=int, default=100)
        show = self.verb("show", self.show, "one session")
        show.add_argument("session", type=int)
        output = self.verb("output", self.output, "what the agent did and said; with --follow until it ends")
        output.add_argument("session", type=int)
        output.add_argument("--follow", action="store_true")
        output.add_argument(
            "--from", type=int, default=1, dest="start", metavar="N", help="the first event's number"
        )

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
        """All events as one array; followed, one JSON object a line."""
        session = find_session(options["session"])
        if not options["follow"]:
            shown = [shapes.log_event(row) for row in events(session, options["start"])]
            for event in shown:
                self.say(line_of(event))
            return shown
        for row in followed(session, options["start"]):
            event = shapes.log_event(row)
            if self.as_json:
                self.stdout.write(json.dumps(event, ensure_ascii=False))
            else:
                self.say(line_of(event))
            self.stdout.flush()
        return None


def find_session(pk: int) -> Session:
    session = Session.objects.select_related("story__project", "agent").filter(pk=pk).first()
    if session is None:
        raise NotFound(f"There is no session {pk}. `session list` shows those there are.")
    return session


def events(session: Session, start: int) -> Iterator[LogEvent]:
    """The events from number `start` on, in batches: a long session never stands whole in memory."""
    if session.process_id is None:
        return
    while True:
        batch = list(
            LogEvent.objects.filter(process_id=session.process_id, seq__gte=start).order_by("seq")[:BATCH]
        )
        yield from batch
        if len(batch) < BATCH:
            return
        start = batch[-1].seq + 1


def followed(session: Session, start: int) -> Iterator[LogEvent]:
    while True:
        session.refresh_from_db()
        over = (
            session.state == State.ENDED
        )  # looked at before the events, so that the last ones are read after it
        for row in events(session, start):
            yield row
            start = row.seq + 1
        if over:
            return
        time.sleep(LOOK_SECONDS)


def line_of(event: dict[str, Any]) -> str:
    """One event as people read it in a terminal."""
    body, kind = event["body"], event["kind"]
    text = str(body.get("text") or "")
    if kind in ("text", "line", "cut"):
        return text
    head = {
        "tool_start": f"> {body.get('title') or body.get('name') or ''}",
        "tool_end": "<" + (" failed" if body.get("error") else ""),
    }
    about = head.get(kind, f"[{kind}]")
    if kind == "note":
        about = f"[{body.get('note')}] {body.get('step') or ''}".rstrip()
    return f"{about} {text}".rstrip() if "\n" not in text else f"{about}\n{text}"
