"""What is known of the agent programs, as pages and commands show it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.db.models import QuerySet

from agents.models import Agent, RuntimeCheck
from agents.runtimes import RUNTIMES
from agents.runtimes.base import Runtime
from agents.services import preflight
from pipeline import conf


@dataclass(frozen=True, slots=True)
class Program:
    """A runtime on this host. `row` is None before its first check; `agents`: how many configured agents use it."""

    runtime: Runtime
    agents: int
    row: RuntimeCheck | None

    @property
    def state(self) -> str:
        """fit, unfit, unknown, checking, or unused: no agent uses it and nobody asked."""
        if self.row is not None and preflight.under_way(self.row):
            return "checking"
        return self.row.state if self.row is not None else "unknown" if self.agents else "unused"

    @property
    def log_ins(self) -> int:
        """How many agents wait for a log-in on this host."""
        logged_out = self.row is not None and self.row.logged_in is False
        return preflight.logs_in_here(self.runtime.name) if logged_out and self.agents else 0

    @property
    def proved(self) -> list[str]:
        return [name for name, held in self.row.proved.items() if held] if self.row is not None else []


def here() -> list[Program]:
    """Every runtime, those that agents use first."""
    rows = {row.runtime: row for row in _rows().filter(host=conf.host())}
    used = Counter(Agent.objects.filter(configured=True).values_list("runtime", flat=True))
    found = [Program(runtime, used[name], rows.get(name)) for name, runtime in RUNTIMES.items()]
    return sorted(found, key=lambda one: not one.agents)


def elsewhere() -> list[RuntimeCheck]:
    return list(_rows().exclude(host=conf.host()).order_by("host", "runtime"))


def _rows() -> QuerySet[RuntimeCheck]:
    return RuntimeCheck.objects.select_related("process")
