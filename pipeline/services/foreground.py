"""Wait for a process that a command asked for; without a running server, follow it here."""

from __future__ import annotations

import time

from pipeline.models import Process
from pipeline.models.process import ProcessState
from pipeline.services import hosts, processes
from pipeline.supervisor import Supervisor

POLL_SECONDS = 0.05


def server_is_running() -> bool:
    """Whether this host's supervisor was heard of within the last ten seconds."""
    return hosts.runs_here()


def see_through(process: Process, *, seconds: float) -> bool:
    """Until the process is handled, at most `seconds`; returns whether it is. Launches and follows it itself where no server does."""
    until = time.monotonic() + seconds
    follower: Supervisor | None = None
    if not server_is_running():
        processes.launch(process.pk)
        follower = Supervisor()
    try:
        while time.monotonic() < until:
            process.refresh_from_db()
            if process.state == ProcessState.HANDLED:
                return True
            if follower is None:
                time.sleep(POLL_SECONDS)
                continue
            # This one process only: what else is to do waits for the server.
            if process.state == ProcessState.RUNNING and process.pk not in follower.followed:
                follower.take_up(process)
            follower.follow()
            follower.look_for_ends()
            follower.wait()
        return False
    finally:
        if follower is not None:
            follower.close()
