"""`./huskies supervise`: the supervisor alone, for those who run the parts under their own process manager."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from huskies_site.stack.parts import AlreadySupervised, supervise
from pipeline.commands import run_as_sentence, translated


class Command(BaseCommand):
    help = "Follow this host's processes and call the sweeps (`up` does this; only for process managers of your own)."
    requires_system_checks: tuple[str, ...] = ()

    def run_from_argv(self, argv: list[str]) -> None:
        run_as_sentence(self, argv)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            code = translated(supervise)
        except AlreadySupervised as error:
            raise CommandError(str(error)) from error
        sys.exit(code)
