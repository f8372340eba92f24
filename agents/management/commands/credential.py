"""`./huskies credential add|list|resume|rotate`. A value is read from standard input, never from the arguments, which every user of the host sees."""

from __future__ import annotations

import getpass
import sys
from typing import Any

from agents import shapes
from agents.models import Credential, RuntimeCheck
from agents.models.credential import CredentialKind
from agents.services import breaker
from agents.services.credentials import VALUE_AT_MOST, add_credential, rotate_seal
from pipeline import conf
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.commands import VerbCommand
from pipeline.exceptions import NotFound


class Command(VerbCommand):
    help = "Keys to model providers: encrypted at rest, never shown."

    def add_verbs(self) -> None:
        add = self.verb("add", self.add, "store a credential; its value is read from standard input")
        add.add_argument("name")
        add.add_argument("--kind", choices=CredentialKind.values, default="api_key")
        add.add_argument(
            "--url",
            action="append",
            default=[],
            help="where it may be sent; may be given several times (default: the provider)",
        )
        add.add_argument("--replace", action="store_true", help="give an existing credential this value")
        self.verb("list", self.list, "the credentials, without their values")
        resume = self.verb("resume", self.resume, "you have seen to it: what was paused with it goes on")
        resume.add_argument("name", nargs="?", default="")
        resume.add_argument("--runtime", help="a program that was paused on a host, instead of a credential")
        resume.add_argument("--host", default="", help="that host; default: this one")
        self.verb("rotate", self.rotate, "seal all credentials with a new key")

    def add(self, options: dict[str, Any]) -> dict[str, Any]:
        value = "" if options["kind"] == CredentialKind.HOST_LOGIN else read_value(options["name"])
        row = add_credential(
            options["name"],
            kind=options["kind"],
            value=value,
            base_urls=options["url"],
            actor=OPERATOR_ON_HOST,
            replace=options["replace"],
        )
        self.say(
            f"Credential {row.name} is stored. An agent uses it with `credential: {row.name}` in the project file."
        )
        return shapes.credential(row)

    def list(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        found = [shapes.credential(row) for row in Credential.objects.order_by("name")]
        self.table(
            ["CREDENTIAL", "KIND", "MAY BE SENT TO", "PAUSED FOR"],
            [
                [c["name"], c["kind"], ", ".join(c["base_urls"]) or "the provider", c["paused_for"] or ""]
                for c in found
            ],
            "There are no credentials. Add one with `credential add NAME`.",
        )
        return found

    def resume(self, options: dict[str, Any]) -> dict[str, Any]:
        if options["runtime"]:
            host = options["host"] or conf.host()
            pause = RuntimeCheck.objects.filter(host=host, runtime=options["runtime"], state="unfit").first()
            if pause is None:
                raise NotFound(f"Runtime {options['runtime']} is not paused on {host}.")
            breaker.lift_runtime(pause, actor=OPERATOR_ON_HOST)
            self.say(f"{options['runtime']} is used on {host} again.")
            return {"runtime": options["runtime"], "host": host}
        row = Credential.objects.filter(name=options["name"]).first()
        if row is None:
            raise NotFound(
                f"There is no credential {options['name']!r}. `credential list` shows those there are."
            )
        breaker.lift_credential(row, actor=OPERATOR_ON_HOST)
        self.say(f"Credential {row.name} is used again.")
        return shapes.credential(row)

    def rotate(self, options: dict[str, Any]) -> dict[str, Any]:
        count = rotate_seal(actor=OPERATOR_ON_HOST)
        self.say(f"Sealed again with a new key: {count}.")
        return {"sealed": count}


def read_value(name: str) -> str:
    """Typed without an echo at a terminal, else the first line of standard input."""
    if sys.stdin.isatty():
        return getpass.getpass(f"The value of {name} (not shown): ")
    return sys.stdin.readline(VALUE_AT_MOST + 100)
