"""`./huskies doctor [--heal]`: one line per lie, exit 1 if there is one; with --heal it mends first what it can, and says what."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from huskies_site import doctoring
from pipeline.commands import plain, run_as_sentence, translated
from pipeline.doctor import heal
from pipeline.services import foreground


class Command(BaseCommand):
    help = "Compare database, logs, git and processes; print what does not fit, one line each, and exit 1 if anything does not."
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--environment",
            action="store_true",
            help="what this machine has of git, bubblewrap and agent programs",
        )
        parser.add_argument(
            "--settle",
            type=float,
            default=3.0,
            metavar="SECONDS",
            help="how long something may be under way (0: not at all)",
        )
        parser.add_argument(
            "--heal", action="store_true", help="mend what can be (a running server does each minute)"
        )
        parser.add_argument("--json", action="store_true", dest="as_json")

    def run_from_argv(self, argv: list[str]) -> None:
        if "--environment" in argv[2:]:  # asked before the first `up` too, when there is no data folder yet
            super().run_from_argv(argv)
        else:
            run_as_sentence(self, argv)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["environment"]:
            return self.environment(options["as_json"])
        healed = translated(lambda: heal(doctoring.healers())) if options["heal"] else []
        found = translated(lambda: doctoring.lies(max(options["settle"], 0.0)))
        if options["as_json"]:
            lies = [asdict(lie) for lie in found]
            answer = {"healed": [asdict(one) for one in healed], "lies": lies} if options["heal"] else lies
            self.stdout.write(json.dumps(answer, indent=2))
        else:
            for one in healed:
                self.stdout.write(plain(f"Healed {one}"))
            for lie in found:
                self.stdout.write(plain(str(lie)))
            if not found:
                self.stdout.write("Database, logs, git and processes tell the same.")
            if not foreground.server_is_running():
                self.stdout.write(
                    "The server does not run here, so what waits for it to start again is not counted."
                )
        if found:
            sys.exit(1)

    def environment(self, as_json: bool) -> None:
        pieces = doctoring.environment()
        if as_json:
            self.stdout.write(json.dumps([asdict(piece) for piece in pieces], indent=2))
        else:
            for piece in pieces:
                self.stdout.write(
                    f"{piece.name}: {piece.found}" + (f". {piece.remedy}" if piece.remedy else "")
                )
        if any(piece.needed and piece.remedy for piece in pieces):
            sys.exit(1)
