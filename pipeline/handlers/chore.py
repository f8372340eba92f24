"""The order for a runner that does one chore of git's (pipeline/processes/chores.py)."""

from __future__ import annotations

from typing import Any

from pipeline.models import Process
from pipeline.processes.chores import chore_step

LOG_BYTES = 16_000_000


def order(process: Process, name: str, request: dict[str, Any], *, timeout: float) -> dict[str, Any]:
    """The runner's spec for a chore; `timeout` in seconds."""
    return order_of_steps(process, [chore_step(name, request, timeout=timeout)])


def order_of_steps(process: Process, steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "version": 1,
        "key": process.key,
        "marker": {"HUSKIES_SESSION": process.key},
        "steps": steps,
        "limits": {"log_bytes": LOG_BYTES, "on_cap": "keep_ends", "grace": 5.0},
    }
