"""`./huskies budget list|set|clear`: what agents may cost, a day or in all."""

from __future__ import annotations

from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from typing import Any

from agents import shapes
from agents.commands import Shapes
from agents.models.limit import PAID, Period
from agents.services import limiting, using
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.commands import VerbCommand, find_project
from pipeline.exceptions import BadInput


class Command(VerbCommand):
    help = "What agents may cost, in US dollars and in tokens: of the server, a project, a person or a story, a day (UTC) or in all."

    def add_verbs(self) -> None:
        listed = self.verb("list", self.list, "every budget, with what was spent")
        listed.add_argument("--project", help="only what holds for it")
        put = self.on_subject("set", self.set, "set a budget, or change one")
        put.add_argument("--usd", help="at most so many US dollars, such as 12.50")
        put.add_argument("--tokens", type=int, help="at most so many tokens")
        self.on_subject("clear", self.clear, "take a budget away")

    def on_subject(self, name: str, run: Any, help: str) -> ArgumentParser:
        parser = self.verb(name, run, help)
        parser.add_argument("scope", choices=PAID)
        parser.add_argument(
            "--name", default="", help="which: a project, person or PROJECT/NUMBER; without it, each"
        )
        parser.add_argument("--period", choices=Period.values, default=Period.DAY.value)
        parser.add_argument("--why", default="", help="the reason, which others will read")
        return parser

    def list(self, options: dict[str, Any]) -> Shapes:
        project = find_project(options["project"]) if options["project"] else None
        found = [shapes.budget(row) for row in using.budgets(project)]
        self.table(
            ["OF", "NAME", "PERIOD", "SPENT", "OF USD", "TOKENS", "OF TOKENS"],
            [
                [
                    r["scope"],
                    r["name"] or "each",
                    r["period"],
                    r["spent_usd"],
                    r["usd"],
                    r["spent_tokens"],
                    r["tokens"],
                ]
                for r in found
            ],
            "There are no budgets.",
        )
        return found

    def set(self, options: dict[str, Any]) -> dict[str, Any]:
        if options["usd"] is None and options["tokens"] is None:
            raise BadInput("A budget limits something: give --usd, --tokens, or both.")
        return self.changed(options, dollars(options["usd"]), options["tokens"])

    def clear(self, options: dict[str, Any]) -> dict[str, Any]:
        return self.changed(options, None, None)

    def changed(self, options: dict[str, Any], usd: Decimal | None, tokens: int | None) -> dict[str, Any]:
        scope, name, period = options["scope"], options["name"], options["period"]
        row = limiting.set_budget(
            scope, name, period, usd, tokens, actor=OPERATOR_ON_HOST, why=options["why"]
        )
        self.say(
            f"The budget of {scope}{f' {name}' if name else ''} ({period}) is {'changed' if row else 'gone'}."
        )
        return {
            "scope": scope,
            "name": name or None,
            "period": period,
            "usd": f"{row.usd:.6f}" if row and row.usd is not None else None,
            "tokens": row.tokens if row else None,
        }


def dollars(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        return Decimal(text.removeprefix("$"))
    except InvalidOperation as error:
        raise BadInput(f"{text!r} is no amount of US dollars; write it as 12.50.") from error
