"""From an agent's line to its frame in a WebSocket client, the whole way through: runner, log, supervisor, database, tail, hub, socket.

The line's instant is the stamp that the runner gives it as it comes out of the agent's pipe; the frame's is taken in the client, on the same clock.
"""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from django.conf import settings
from websockets.sync.client import connect
from websockets.typing import Origin

from pipeline import conf
from pipeline.models import Story
from pipeline.processes import logfile
from tests.benchmarks.measure import Row, judged, percentile, wait_for
from tests.benchmarks.world import World, served

LINES_PER_ROUND = 20
ALLOWANCE_MS = 20.0
IDLE_MS = 40.0
"""A line after a pause this much longer than the push interval finds its socket idle."""
LINE = re.compile(r"measured-line-(\d+)-")


def measure(rounds: int) -> list[Row]:
    draw = random.Random(1)
    gaps = [draw.uniform(0.01, 0.2) for _ in range(rounds * LINES_PER_ROUND)]
    with served(coders=1) as world:
        took = latencies(world, gaps)
    configured = 2 * settings.HUSKIES_TICK_MS + settings.HUSKIES_PUSH_MS
    idle = [
        took[n]
        for n in range(1, len(gaps))
        if gaps[n - 1] * 1000 > settings.HUSKIES_PUSH_MS + IDLE_MS and took[n - 1] < gaps[n - 1] * 1000
    ]
    bare = raw_lines(len(gaps) // 4)
    p99, idle_p99 = percentile(took, 99), percentile(idle, 99)
    without_push = 2 * settings.HUSKIES_TICK_MS + ALLOWANCE_MS
    return [
        judged(
            "push", f"agent's line to frame, p99 of {len(took)} lines", p99, configured + ALLOWANCE_MS,
            f"p50 {percentile(took, 50):.1f}, p99 {p99:.1f}, worst {max(took):.1f} ms",
            f"p99 <= {configured} + {ALLOWANCE_MS:g} ms",
            f"supervisor and tail look each {settings.HUSKIES_TICK_MS} ms, push {settings.HUSKIES_PUSH_MS} ms",
        ),
        judged(
            "push", f"the same to an idle socket, p99 of {len(idle)} lines", idle_p99, without_push,
            f"p50 {percentile(idle, 50):.1f}, p99 {idle_p99:.1f} ms", f"p99 <= {without_push:g} ms (no push interval)",
        ),
        Row("push", "floor: a child's line through a pipe and a TCP socket", f"p50 {percentile(bare, 50):.2f}, p99 {percentile(bare, 99):.2f} ms"),
    ]  # fmt: skip


def latencies(
    world: World, gaps: list[float], meanwhile: Callable[[], None] = lambda: None, also: Sequence[Story] = ()
) -> list[float]:
    """Milliseconds from each line of an agent, which pauses for the gaps between them, to its frame; `meanwhile` is called as it begins.

    `also`: stories that are ended with it.
    """
    script: list[dict[str, object]] = [{"wait_for": {"file": ".git/go", "timeout": 60}}]
    for number, gap in enumerate(gaps):
        script += [{"say": f"measured-line-{number}-"}, {"sleep": round(gap, 4)}]
    seen: dict[int, float] = {}
    story = world.story([*script, {"hang": True}])
    session = world.start(story)
    wait_for(lambda: world.running(session), "the session")
    address = world.server.address.replace("http", "ws", 1) + "/live/"
    cookie = {"Cookie": world.person.headers["Cookie"]}
    with connect(address, additional_headers=cookie, origin=Origin(world.server.address)) as client:
        client.send(json.dumps({"subscribe": f"process:{session.key}", "since": 0}))
        meanwhile()
        (conf.copy_path(session.key) / ".git" / "go").touch()
        until = time.monotonic() + sum(gaps) + 60
        while len(seen) < len(gaps):
            text = client.recv(timeout=max(0.1, until - time.monotonic()))
            now = time.monotonic()
            for number in LINE.findall(str(text)):
                seen.setdefault(int(number), now)
    records, _ = logfile.read_records(world.log(session), 0, 1 << 26)
    world.end(story, *also)
    written = {
        int(found[1]): record.monotonic_ns / 1e9
        for record in records
        if (found := LINE.search(record.data.decode(errors="replace")))
    }
    return [(seen[number] - written[number]) * 1000 for number in range(len(gaps))]


def raw_lines(number: int) -> list[float]:
    """Milliseconds from a child's print to its line at the far end of a TCP connection, with nothing between but this process."""
    code = f"import sys,time\nfor n in range({number}):\n time.sleep(0.01); print(time.monotonic_ns(), flush=True)"
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
    ):
        far, _ = listener.accept()
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        took = []
        with far, subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for line in child.stdout:
                near.sendall(line)
                got = far.recv(1000)
                took.append((time.monotonic_ns() - int(got)) / 1e6)
        return took
