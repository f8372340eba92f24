"""The runner's helper that is a session's sidecar (`sidecar.py`): its order, made by whoever launches."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.processes.confine import CARRIED, CERTIFICATES

PROGRAM = Path(__file__).with_name("sidecar.py")
PORTS = range(20000, 32000)  # below those that the kernel gives to outgoing connections
TRIES = 100
DEFAULT_PORTS = {"https": 443, "http": 80}


def sidecar(
    *,
    port: int | None = None,
    folder: Path | None = None,
    base_url: str = "",
    key: str = "",
    token: str = "",
    allow: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The helper, listening on `port` of this host's loopback, or in `folder` (which an earlier step makes).

    `base_url`: the provider that requests with `token` go to, with `key` in its place. `allow`: hosts that may be reached
    besides (`network.Network.rules`), None = none.
    """
    parts = urlsplit(base_url)
    where = parts.hostname and {
        "scheme": parts.scheme,
        "host": parts.hostname,
        "port": parts.port or DEFAULT_PORTS[parts.scheme],
        "path": parts.path.rstrip("/"),
    }
    order = {
        "listen": {"port": port} if folder is None else {"folder": str(folder)},
        "upstream": where or None,
        "key": key,
        "token": token,
        "allow": None if allow is None else [dict(one) for one in allow],
        "proxies": proxies(),
    }
    kept = ("PATH", *CARRIED, *CERTIFICATES)
    return {
        "name": "sidecar",
        "argv": [sys.executable, "-I", "-S", str(PROGRAM)],
        "cwd": "/",
        "env": {name: os.environ[name] for name in kept if os.environ.get(name)},
        "stdin": json.dumps(order),
    }


def proxies() -> dict[str, Any]:
    """This host's own way out, as its environment names it. A password in it stays with the sidecar."""
    found: dict[str, Any] = urllib.request.getproxies_environment()
    no = [word.strip() for word in found.pop("no", "").split(",") if word.strip()]
    return {name: url for name, url in found.items() if name in DEFAULT_PORTS} | {"no": no}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now. Should another take it first, the sidecar says so and does not begin."""
    for _ in range(TRIES):
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"No free port was found on 127.0.0.1 in {TRIES} tries between {PORTS[0]} and {PORTS[-1]}.")
