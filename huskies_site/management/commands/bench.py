"""`./huskies bench [--quick] [--only NAME]`: measure the server against the bare machine, and print the table."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from django.core.management.base import BaseCommand

ROOT = Path(__file__).resolve().parents[3]


class Command(BaseCommand):
    help = "Measure start, push, memory, restart and claims against the bare machine. --quick: a look. --only NAME: one case."
    requires_system_checks: tuple[str, ...] = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """The benchmarks are a program of their own, with data folders of their own: it takes this process's place."""
        if find_spec("websockets") is None:
            self.stderr.write(
                "The benchmarks need the development packages. Use ./huskies bench, which installs them."
            )
            sys.exit(1)
        os.chdir(ROOT)
        os.environ.pop("DJANGO_SETTINGS_MODULE", None)
        os.execv(sys.executable, [sys.executable, "-m", "tests.benchmarks", *argv[2:]])  # noqa: S606  # a list, no shell
