"""A gate with `network: off` or a list of hosts, its setup with it."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import pytest

from pipeline.models import GateRun
from pipeline.processes import confine
from tests.e2e.shop import Shop, write

pytestmark = [pytest.mark.needs_bubblewrap]

KNOCK = """
import os, socket, sys, urllib.parse
port = int(sys.argv[1])
way = urllib.parse.urlsplit(os.environ.get("HTTPS_PROXY", ""))
try:
    socket.create_connection(("127.0.0.1", port), 5)
    print("straight")
except OSError:
    print("not straight")
if way.hostname:
    s = socket.create_connection((way.hostname, way.port))
    s.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\\r\\n\\r\\n" % port)
    print(s.recv(100).split(b"\\r\\n")[0].decode())
"""


def judged(shop: Shop, network: Any, port: int) -> GateRun:
    """The gate run of a story; its setup and its gate knock at a port of this host."""
    knock = f"{sys.executable} -I -S knock.py {port}"
    file = {
        "agents": [{"name": "coder-1", "runtime": "scripted"}],
        "components": [{"name": "web", "setup": f"{knock} | sed 's/^/setup: /'"}],
        "gate": {"command": knock, "network": network},
    }
    project = shop.open(files={".huskies/project.yaml": json.dumps(file), "knock.py": KNOCK})
    story = shop.start(project, [write("a.txt")])
    shop.server.until(lambda: shop.fresh(story).stage in ("done", "blocked"), what="its end")
    return GateRun.objects.order_by("pk")[0]


def test_off_is_off_for_the_gate_and_its_setup(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        run = judged(shop, "off", outside.getsockname()[1])
    assert run.verdict == "passed"
    assert "\nstraight" not in f"\n{run.output}" and run.output.count("not straight") == 2


def test_on_is_as_it_was(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        run = judged(shop, "on", outside.getsockname()[1])
    assert run.output.splitlines()[-1] == "straight"


@pytest.mark.parametrize("listed", [True, False])
def test_a_list_is_reached_through_the_sidecar_alone(shop: Shop, listed: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        run = judged(shop, {"allow": [f"127.0.0.1:{port if listed else port + 1}"]}, port)
    answer = "HTTP/1.1 200 Connection established" if listed else "HTTP/1.1 403 Forbidden"
    assert run.verdict == "passed"
    assert run.output.count("not straight") == 2 and run.output.count(answer) == 2


def test_where_it_cannot_be_kept_the_gate_does_not_run_and_says_why(
    shop: Shop, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.HUSKIES_UNCONFINED = True
    monkeypatch.setattr(
        confine, "level_available", lambda: confine.Level("none", "bubblewrap is not installed.")
    )
    file = {
        "agents": [{"name": "coder-1", "runtime": "scripted"}],
        "gate": {"command": "true", "network": "off"},
    }
    project = shop.open(files={".huskies/project.yaml": json.dumps(file)})
    story = shop.start(project, [write("a.txt")])
    shop.server.until(lambda: GateRun.objects.filter(verdict="errored").exists(), what="a verdict")
    run = GateRun.objects.get(story=story)
    assert (
        run.reason == "The gate's `network` can only be kept within bubblewrap. bubblewrap is not installed."
    )
