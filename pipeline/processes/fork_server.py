"""The program that has loaded what a runner and a chore need, and forks a runner for whoever holds the other end of its stdin:
`python -I -S fork_server.py`.

Each message there is one runner to begin, with the two ends of its pipes: where its order comes from, and where it reports. The forked one goes
the way of `runner.py` and detaches. This process does nothing else; it ends when the other end is closed.
"""

import gc
import os
import signal
import socket
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120

from pipeline.processes import (  # noqa: F401
    chore_candidate,
    chore_discard,
    chore_fetch,
    chore_intake,
    chore_land,
    chore_probe,
    chore_repack,
    chore_snapshot,
    chores,
    runner_start,
)


def serve(requests: socket.socket) -> None:
    """Until nobody is at the other end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps what detaches
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the launcher, which may start more while it ends
    gc.collect()
    gc.freeze()  # what is here stays: pages that nobody marks are shared
    while True:
        said, ends, _, _ = socket.recv_fds(requests, 1, 2)
        if not said:
            return
        try:
            if os.fork() == 0:
                _run(*ends)
        except OSError as error:
            os.write(
                ends[1], f'{{"ready": false, "error": "It cannot be forked: {error.strerror}."}}\n'.encode()
            )
        finally:
            for end in ends:
                os.close(end)


def _run(order: int, report: int) -> None:
    """In the fork; never returns."""
    try:
        os.dup2(order, 0)
        os.dup2(report, 1)
        os.dup2(report, 2)
        runner_start.main()
    finally:
        os._exit(70)


if __name__ == "__main__":
    serve(socket.socket(fileno=0))
