"""What the commands of agents, sessions and stories share: showing output, and waiting for an end."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from agents import shapes
from agents.models import Session
from agents.services import output, waiting
from pipeline.commands import VerbCommand
from pipeline.models import Story

Shapes = list[dict[str, Any]]


class WatchingCommand(VerbCommand):
    def with_output(self, parser: ArgumentParser) -> None:
        parser.add_argument("--follow", action="store_true", help="go on until it ends")
        parser.add_argument(
            "--from", type=int, default=1, dest="start", metavar="N", help="the first event's number"
        )

    def with_timeout(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--timeout",
            type=float,
            metavar="SECONDS",
            help="give up after so long, with exit code 1; without it, wait for the end",
        )

    def show_output(self, session: Session, options: dict[str, Any]) -> Shapes | None:
        """All events as one array; followed, one JSON object a line."""
        if not options["follow"]:
            shown = [shapes.log_event(row) for row in output.events(session, options["start"])]
            for event in shown:
                self.say(output.line_of(event))
            return shown
        for row in output.followed(session, options["start"]):
            event = shapes.log_event(row)
            if self.as_json:
                self.stdout.write(json.dumps(event, ensure_ascii=False))
            else:
                self.say(output.line_of(event))
            self.stdout.flush()
        return None

    def wait_for(self, what: Session | Story, options: dict[str, Any]) -> dict[str, Any]:
        """Blocks until the end, then says the completion report."""
        found = waiting.wait(what, options["timeout"])
        for name, value in found.items():
            if name == "gate" and value:
                reason = f": {value['reason']}" if value["reason"] else ""
                self.say(f"gate: {value['verdict']}{reason}")
            elif name == "output":
                self.say("output:\n" + "\n".join(f"    {line}" for line in str(value).splitlines()))
            elif value not in (None, "", []):
                self.say(
                    f"{name.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}"
                )
        return found
