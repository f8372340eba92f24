"""`./huskies demo [--no-start]`."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from agents.services import pool
from huskies_site import loginlinks
from huskies_site.demo import start_demo
from pipeline import shapes
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.commands import plain, run_as_sentence, translated


class Command(BaseCommand):
    help = (
        "Make a small real repository with three stories, worked by scripted stand-ins: no key, no network."
    )
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--no-start", action="store_true", help="leave the stories in the backlog")
        parser.add_argument(
            "--json",
            action="store_true",
            dest="as_json",
            help="answer with the project and its stories as JSON",
        )

    def run_from_argv(self, argv: list[str]) -> None:
        run_as_sentence(self, argv)

    def handle(self, *args: Any, **options: Any) -> None:
        project = translated(lambda: start_demo(OPERATOR_ON_HOST, start=not options["no_start"]))
        found = shapes.stories(project.stories.select_related("project").order_by("number"))
        if options["as_json"]:
            self.stdout.write(json.dumps({"project": project.name, "stories": found}, indent=2))
            return
        self.stdout.write(
            f"Project {project.name} is in {project.source}. Its coders are scripted stand-ins, not an AI."
        )
        for story in found:
            waits = f"; it waits: {story['waiting_for']}" if story["waiting_for"] else ""
            self.stdout.write(
                plain(f"  {story['project']}/{story['number']} {story['title']}: {story['stage']}{waits}")
            )
        if pool.server_is_running():
            self.stdout.write(f"Watch it at {loginlinks.address()}")
        else:
            self.stdout.write("The server is not running; the stories wait until it is: ./huskies up.")
