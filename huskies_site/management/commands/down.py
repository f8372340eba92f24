"""`./huskies down [--agents]`: end the server that runs on this data folder; with --agents the agents too."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from huskies_site.stack import members, preflight, startup
from pipeline import conf
from pipeline.commands import run_as_sentence, translated
from pipeline.processes import spawn
from pipeline.processes.identity import send_signal

AGENT_SECONDS, UP_SECONDS, LOOK_SECONDS = 20.0, 20.0, 0.1


class Command(BaseCommand):
    help = "End the server that runs on this data folder. Agents go on, unless --agents is given."
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--agents", action="store_true", help="stop the agents and gates first; their work is kept"
        )
        parser.add_argument("--json", action="store_true", dest="as_json")

    def run_from_argv(self, argv: list[str]) -> None:
        run_as_sentence(self, argv)

    def handle(self, *args: Any, **options: Any) -> None:
        asked = translated(startup.drain_and_stop_agents) if options["agents"] else []
        until = time.monotonic() + AGENT_SECONDS
        while alive := [key for key in asked if spawn.runner_alive(conf.runs(), key)]:
            if time.monotonic() > until:
                raise CommandError(
                    f"{len(alive)} processes did not end in {AGENT_SECONDS:g} s ({', '.join(alive)}). Try again."
                )
            time.sleep(LOOK_SECONDS)
        holder = preflight.lock_holder(conf.home())
        if holder is None:
            raise CommandError(f"No server runs on {conf.home()}.")
        identity, address = holder
        send_signal(identity, signal.SIGTERM)
        if not members.wait_for_end(identity, time.monotonic() + UP_SECONDS):
            raise CommandError(
                f"The server (process {identity.pid}) did not end in {UP_SECONDS:g} s. Try again."
            )
        if options["as_json"]:
            self.stdout.write(json.dumps({"stopped": identity.pid, "agents": len(asked)}))
        else:
            self.stdout.write(
                f"The server at {address} has ended."
                + (f" Processes stopped before: {len(asked)}." if options["agents"] else "")
            )
