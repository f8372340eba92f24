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
PROVIDER_WAIT_MOST_SECONDS = 1800
"""The longest such wait: it doubles with each refusal in a row."""
IDLE_IN_A_ROW = 3
"""Sessions in a row that ended by themselves without a change and without a new file read, before the story is blocked."""
IDLE_IN_ALL = 8
"""The same without a change alone, since a person started the story."""
START_SECONDS = 1800.0
"""From the claim to the agent's own start, the components' setup included."""
FIRST_EVENT_SECONDS = 120.0
"""From the start of the program to its first event (agent-runtimes.md 10.4: 60 s on a quiet machine)."""
DISK_MOST = 20 * 2**30
"""Bytes that a session may hold on disk where its agent has no `max_disk`: copy, home and temporary files."""
DISK_MOST_ENTRIES = 1_000_000
"""Files and folders of the same."""
DISK_STEP, DISK_STEP_ENTRIES = 2**30, 100_000
"""By how much the disk becomes fuller before sessions are counted."""
DISK_PAUSE_SECONDS = 10.0
"""At least so long between two such counts."""
TOOL_SILENCE_SECONDS = 3600.0
"""How long a tool that is known to run may say nothing; the runner's own bound, which holds while no server looks."""
WARN_AT = 0.8
"""The part of a limit at which a session is warned, once."""
EXTENSION = 0.2
"""What is added to a session's own limit if it made progress after the warning."""
BLOCKED_GRACE_SECONDS = 10.0
"""How long a program may take to end by itself after its provider refused."""
LIMIT_PATIENCE_SECONDS = 60.0
"""A reset that is nearer than this is waited for by the running session."""
PREFLIGHT_SECONDS = 90.0
"""What one check of an agent program may take (1 to 6 s on a quiet machine)."""
MOST_REQUESTS = 20
"""Permission requests of one session that may wait at a time; what is asked beyond them is denied."""
WAIT_ROOM_SECONDS = 3600.0
"""How much of a session's wait for people is not counted as its time, in all."""
