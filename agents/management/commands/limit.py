"""`./huskies limit list|set|clear`: how many agents may work at once."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from agents import shapes
from agents.commands import Shapes
from agents.models.limit import COUNTED
from agents.services import limiting, using
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.commands import VerbCommand, find_project


class Command(VerbCommand):
    help = "How many agents may work at once: in all, and of each host, project, person, role, model and agent. Lowering one ends nothing."

    def add_verbs(self) -> None:
        listed = self.verb("list", self.list, "every limit, with its use")
        listed.add_argument("--project", help="only what holds for it")
        put = self.on_subject("set", self.set, "set a limit, or change one")
        put.add_argument("most", type=int, help="how many at once; 0 = nothing starts")
        put.add_argument("--why", default="", help="the reason, which others will read")
        self.on_subject("clear", self.clear, "take a limit away").add_argument("--why", default="")

    def on_subject(self, name: str, run: Any, help: str) -> ArgumentParser:
        parser = self.verb(name, run, help)
        parser.add_argument("scope", choices=COUNTED)
        parser.add_argument(
            "--name",
            default="",
            help="which: a host, project, person, role, model or PROJECT/AGENT; without it, each",
        )
        return parser

    def list(self, options: dict[str, Any]) -> Shapes:
        project = find_project(options["project"]) if options["project"] else None
        found = [shapes.limit(row) for row in using.limits(project)]
        self.table(
            ["OF", "NAME", "USED", "MOST", "NOTE"],
            [
                [row["scope"], row["name"] or "each", row["used"], row["most"], row["note"] or ""]
                for row in found
            ],
            "There are no limits.",
        )
        return found

    def set(self, options: dict[str, Any]) -> dict[str, Any]:
        return self.changed(options, options["most"])

    def clear(self, options: dict[str, Any]) -> dict[str, Any]:
        return self.changed(options, None)

    def changed(self, options: dict[str, Any], most: int | None) -> dict[str, Any]:
        scope, name = options["scope"], options["name"]
        limiting.set_limit(scope, name, most, actor=OPERATOR_ON_HOST, why=options["why"])
        self.say(
            f"The limit on {scope} {name or '(each)' if scope != 'server' else ''} ".rstrip()
            + (f" is {most}." if most is not None else " is gone.")
        )
        return {"scope": scope, "name": name or None, "most": most}
