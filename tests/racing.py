"""Several real processes that begin together: each reads its order from argv, says "ready", and begins when a line comes on stdin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, connections

from tests import databases

ROOT = Path(__file__).resolve().parents[1]


def database_url() -> str:
    """Of this process's own database, for another process."""
    name = str(connection.settings_dict["NAME"])
    return f"sqlite:///{name}" if connection.vendor == "sqlite" else databases.postgresql_url(name)


def together(program: Path, orders: Sequence[Any], timeout: float) -> list[dict[str, Any]]:
    """What each process says at its end; none may have met an error."""
    connections.close_all()
    env = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "HUSKIES_HOME": str(settings.HUSKIES_HOME),
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "huskies_site.settings",
    }
    racers = [
        subprocess.Popen(
            [sys.executable, str(program), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=ROOT,
        )
        for order in orders
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        results = [json.loads(racer.communicate(timeout=timeout)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    errors = [error for result in results for error in result["errors"]]
    assert not errors, "\n\n".join(map(str, errors))
    return results
