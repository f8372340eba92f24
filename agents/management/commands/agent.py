"""`./huskies agent list`."""

from __future__ import annotations

from typing import Any

from agents import shapes
from agents.models import Agent
from pipeline.commands import VerbCommand, find_project


class Command(VerbCommand):
    help = "The agents that the project files name, and what each does."

    def add_verbs(self) -> None:
        listed = self.verb("list", self.list, "every agent, with its state and story")
        listed.add_argument("--project")
        listed.add_argument(
            "--all", action="store_true", help="those that are no longer in a project file too"
        )

    def list(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        rows = Agent.objects.select_related("project").order_by("project__name", "position")
        if options["project"]:
            rows = rows.filter(project=find_project(options["project"]))
        if not options["all"]:
            rows = rows.filter(configured=True)
        found = shapes.agents(rows)
        self.table(
            ["AGENT", "PROJECT", "ROLE", "RUNTIME", "MODEL", "STATE", "STORY"],
            [
                [a["name"], a["project"], a["role"], a["runtime"], a["model"], a["state"], a["story"]]
                for a in found
            ],
            "There are no agents. They come with a project: `project add PATH_OR_URL`.",
        )
        return found
