"""Numbers of the agents app that someone may want to turn."""

from __future__ import annotations

CRASH_CAP = 3
"""Sessions that crash, hang or are lost before the story is blocked (agent-runtimes.md 10.2)."""
PROVIDER_WAIT_SECONDS = 60
"""How long a story waits after an overload that named no time."""
STOP_GRACE_SECONDS = 5.0
SESSION_WALL_SECONDS = 6 * 3600.0
AGENT_LOG_BYTES = 50_000_000
INTAKE_TRIES = 3
NOT_BEGUN_CAP = 5
"""Starts in a row that failed before the agent began, before the story is blocked."""
