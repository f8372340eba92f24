"""`./huskies spend`: what was spent, by story, session, agent, model, person, project or day."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from agents import prices
from agents.services import ledger
from pipeline.commands import find_project, plain, run_as_sentence, say_table, translated, words_of
from pipeline.exceptions import BadInput


class Command(BaseCommand):
    help = "What was spent on agents, in US dollars and tokens, counted per request while they run. Days are UTC."
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--by", choices=ledger.BY, default="project", help="what the sums are of")
        parser.add_argument(
            "--since", metavar="DATE", help="the first day, such as 2026-11-25; without it, all days"
        )
        parser.add_argument("--until", metavar="DATE", help="the last day")
        parser.add_argument("--project", help="only of this project")
        parser.add_argument(
            "--json", action="store_true", dest="as_json", help="answer with JSON on standard output"
        )

    def run_from_argv(self, argv: list[str]) -> None:
        run_as_sentence(self, argv)

    def handle(self, *args: Any, **options: Any) -> None:
        translated(lambda: self.answer(words_of(options)))

    def answer(self, options: dict[str, Any]) -> None:
        project = find_project(options["project"]) if options["project"] else None
        asked = ledger.Asked(options["by"], day(options["since"]), day(options["until"]), project)
        found, total = ledger.lines(asked), ledger.total(asked)
        if options["as_json"]:
            answer = {
                "by": asked.by,
                "lines": [ledger.shape(line) for line in found],
                "total": ledger.shape(total),
            }
            self.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False))
            return
        rows = [
            [line.name, f"{line.usd:.6f}", *(getattr(line, name) for name in COUNTS)]
            for line in [*found, total]
        ]
        head = [asked.by.upper(), "USD", "TOKENS", "IN", "OUT", "THINKING", "CACHE READ", "CACHE WRITE"]
        say_table(self.stdout.write, head, rows if found else [], "Nothing was spent.")
        if total.unpriced_usd:
            self.stdout.write(
                plain(f"Of it ${total.unpriced_usd:.6f} by models without a price ({prices.counted_as()}).")
            )


COUNTS = (
    "tokens",
    "input_tokens",
    "output_tokens",
    "thinking_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
)


def day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise BadInput(f"{text!r} is no day; write it as 2026-11-25.") from None
