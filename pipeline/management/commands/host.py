"""`./huskies host list|drain|resume|lost`: the machines that run agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline import conf, shapes
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.commands import VerbCommand
from pipeline.models import Host
from pipeline.services import hosts


class Command(VerbCommand):
    help = "The machines that run agents: list them, drain one, take it into use again, give one up."

    def add_verbs(self) -> None:
        self.verb("list", self.list, "every host, with what is known of it")
        self.on_host("drain", hosts.drain, "finish what runs there and start nothing new")
        self.on_host("resume", hosts.resume, "take work again")
        self.on_host(
            "lost", hosts.give_up, "give it up: its stories are begun anew elsewhere, charged to nobody"
        )

    def on_host(self, name: str, change: Callable[..., Host], help: str) -> None:
        def run(options: dict[str, Any]) -> dict[str, Any]:
            return self.tell(change(options["name"], actor=OPERATOR_ON_HOST, why=options["why"]))

        parser = self.verb(name, run, help)
        parser.add_argument("name", metavar="NAME", nargs="?", default=conf.host(), help="default: this host")
        parser.add_argument("--why", default="", help="the reason, which others will read")

    def list(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        found = [shapes.host(host) for host in Host.objects.order_by("name")]
        self.table(
            ["HOST", "IS", "LAST HEARD OF", "PROCESSES", "CONFINEMENT"],
            [[h["name"], h["state"], h["seen_at"], h["processes"], h["confinement"]] for h in found],
            "No host is known yet. Start the server once with `./huskies up`.",
        )
        return found

    def tell(self, host: Host) -> dict[str, Any]:
        answer = shapes.host(host)
        self.say(f"Host {host.name} is {answer['state']}.")
        return answer
