"""`./huskies runtime list|check|install`: whether the agent programs are fit on this host.

`check` runs them against the stand-in for their providers; `install` brings what the direct-API runtimes need.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

from django.core.management.base import CommandError

from agents import conf as agents_conf
from agents.commands import Shapes
from agents.models import Fitness, RuntimeCheck, Session
from agents.runtimes import api_packages
from agents.runtimes.api import DIRECT_APIS
from agents.services import preflight, readiness
from agents.services.readiness import Program
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.commands import VerbCommand
from pipeline.models import Process
from pipeline.services import foreground

Programs = list[Program]


class Command(VerbCommand):
    help = "Agent programs: what is fit on this host, and why not."

    def add_verbs(self) -> None:
        self.verb("list", self.list, "every runtime, with what its last check found")
        check = self.verb(
            "check", self.try_out, "try the program of a runtime against the stand-in for its provider"
        )
        check.add_argument("name", nargs="?", default="", help="default: all that agents use")
        check.add_argument(
            "--wait", action="store_true", help="until it is known; exit code 1 unless all are fit"
        )
        names = ", ".join(one.name for one in DIRECT_APIS)
        install = self.verb("install", self.install, f"install what {names} need: 175 MB, up to a minute")
        install.add_argument("what", choices=["api"])

    def list(self, options: dict[str, Any]) -> Shapes:
        return self.show(readiness.here())

    def try_out(self, options: dict[str, Any]) -> Shapes:
        names = [options["name"]] if options["name"] else preflight.used()
        wait = options["wait"]
        if not names:
            self.say("No agent uses any runtime yet. Name one, as in `runtime check codex`.")
        for name in names:
            row = preflight.check(name, actor=OPERATOR_ON_HOST)
            if wait and row.process is not None:
                self.see_through(row.process)
        if not wait and not foreground.server_is_running():
            self.say(
                "No server runs here: the checks begin with the next `./huskies up`. `--wait` makes them now."
            )
        found = [one for one in readiness.here() if one.runtime.name in names]
        shown = self.show(found)
        if wait and any(one.state != Fitness.FIT for one in found):
            if self.as_json:
                self.stdout.write(json.dumps(shown, indent=2, ensure_ascii=False))
            sys.exit(1)
        return shown

    def install(self, _options: dict[str, Any]) -> dict[str, str]:
        new = api_packages.installed() is None
        try:
            where = api_packages.install()
        except api_packages.NotInstalled as problem:
            raise CommandError(
                f"{problem} Check the network and the package index, then try again."
            ) from None
        in_use = Session.objects.live().filter(runtime__in=[one.name for one in DIRECT_APIS]).exists()
        for earlier in [] if in_use else api_packages.outdated():
            shutil.rmtree(earlier, ignore_errors=True)
        version = api_packages.installed_version() or ""
        self.say(
            f"pydantic-ai {version} {'is' if new else 'was'} installed{'' if new else ' already'}: {where}"
        )
        self.say("Try it: ./huskies runtime check openai-api --wait")
        return {"folder": str(where), "version": version}

    def see_through(self, process: Process) -> None:
        """Until this check is over, and no longer than a check may take (with the start and the end of it)."""
        seconds = agents_conf.PREFLIGHT_SECONDS + 60
        began = time.monotonic()
        if not foreground.see_through(process, seconds=seconds):
            self.say(
                f"Process {process.key} is not over after {time.monotonic() - began:.0f} s; look again later."
            )

    def show(self, found: Programs) -> Shapes:
        shown = [shape(one) for one in found]
        self.table(
            ["RUNTIME", "IS", "AGENTS", "VERSION", "LOGGED IN", "TOOK", "WHY, AND WHAT TO DO"],
            [
                [
                    one["name"],
                    one["state"],
                    one["agents"],
                    one["version"] or "-",
                    {True: "yes", False: "no", None: "-"}[one["logged_in"]],
                    f"{one['seconds']:.1f} s" if one["seconds"] else "-",
                    " ".join(filter(None, (one["reason"], one["remedy"], one["warning"]))),
                ]
                for one in shown
            ],
            "",
        )
        return shown


def shape(one: Program) -> dict[str, Any]:
    """`state`: fit, unfit, unknown, checking or unused; `tested`: the versions that were tested, "" = any; `seconds` of the last trial."""
    row = one.row or RuntimeCheck()
    return {
        "name": one.runtime.name,
        "label": one.runtime.label,
        "state": one.state,
        "agents": one.agents,
        "tested": one.runtime.tested,
        "path": row.path or None,
        "version": row.version or None,
        "logged_in": row.logged_in,
        "proved": one.proved,
        "reason": row.reason or None,
        "remedy": row.remedy or None,
        "warning": row.warning or None,
        "seconds": row.seconds,
        "checked": row.checked_at.isoformat() if row.checked_at else None,
    }
