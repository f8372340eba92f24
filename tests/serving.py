"""A server in the test's own process: the supervisor's steps, the launches and the assignments, without a queue.

What it does is what `up` does, one step after the other, so that a test says what it waits for instead of sleeping.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from agents.services import assigning, telling
from pipeline import conf
from pipeline.models import Process, Project
from pipeline.models.process import ProcessState
from pipeline.services import merges, processes
from pipeline.supervisor import Supervisor


class Server:
    def __init__(self) -> None:
        conf.home().mkdir(parents=True, exist_ok=True)
        self.supervisor = Supervisor(tick_seconds=0.005)
        self.supervisor.open_bell()

    def step(self) -> None:
        """One turn: launch what is prepared, follow, assign, tell agents what is written for them, advance the merges."""
        for pk in Process.objects.filter(state=ProcessState.PREPARED, host=conf.host()).values_list(
            "pk", flat=True
        ):
            processes.launch(pk)
        self.supervisor.scan()
        self.supervisor.step()
        assigning.auto_assign()
        telling.sweep()
        for pk in Project.objects.values_list("pk", flat=True):
            merges.advance(pk)

    def until(self, reached: Callable[[], object], *, what: str, seconds: float = 60) -> None:
        """Step until `reached()`; the supervisor's own wait paces it. Fails with what was waited for and what runs."""
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                rows = [f"{p}: {p.exit}" for p in Process.objects.order_by("-pk")[:10]]
                raise AssertionError(
                    f"{what} was not reached within {seconds:g} s. Processes:\n" + "\n".join(rows)
                )
            self.step()
            self.supervisor.wait()

    def idle(self, seconds: float = 60) -> None:
        """Until no process of this host is live or unhandled."""
        self.until(lambda: not Process.objects.unhandled().exists(), what="an idle server", seconds=seconds)

    def close(self) -> None:
        for process in Process.objects.live():
            processes.stop(process, grace=0.1)
        self.supervisor.close()
