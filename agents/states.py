"""The life of a session, and the roles of agents."""

from __future__ import annotations

from django.db import models


class Role(models.TextChoices):
    CODER = "coder", "coder"
    QA = "qa", "QA"
    MERGEMASTER = "mergemaster", "mergemaster"
    OTHER = "other", "other"


class State(models.TextChoices):
    QUEUED = "queued", "claimed, not yet started"
    STARTING = "starting", "starting"
    RUNNING = "running", "running"
    STOPPING = "stopping", "ending: its work is being saved"
    ENDED = "ended", "ended"


LIVE = (State.QUEUED, State.STARTING, State.RUNNING, State.STOPPING)


class Outcome(models.TextChoices):
    """How a session ended: the closed set that pages, commands and the decision table know (agent-runtimes.md 10)."""

    DONE = "done", "done"
    NO_CHANGE = "no_change", "done, without any change"
    STOPPED = "stopped", "stopped by a person"
    TURN_LIMIT = "turn_limit", "its limit of turns was reached"
    BUDGET = "budget", "its budget was used up"
    WALL_LIMIT = "wall_limit", "its time was up"
    MEMORY_LIMIT = "memory_limit", "it used too much memory"
    DISK_LIMIT = "disk_limit", "it filled the disk"
    OUTPUT_LIMIT = "output_limit", "it printed too much"
    HUNG = "hung", "it said nothing for too long"
    RATE_LIMITED = "rate_limited", "the provider's rate limit"
    OVERLOADED = "overloaded", "the provider was overloaded"
    AUTH = "auth", "the provider refused its key"
    BILLING = "billing", "the account has no money left"
    BAD_MODEL = "bad_model", "the model is unknown to the provider"
    CONTEXT_FULL = "context_full", "its conversation grew too long"
    CONFIG = "config", "it is not configured right"
    CRASHED = "crashed", "it crashed"
    LOST = "lost", "its runner died"
    HOST_LOST = "host_lost", "its host was given up"
    WORKSPACE_LOST = "workspace_lost", "its working copy is gone"
    NOT_STARTED = "not_started", "it could not be started"


class StopCause(models.TextChoices):
    """Who or what asked a session to stop."""

    PERSON = "person", "a person"
    TURN_LIMIT = "turn_limit", "its limit of turns"
    BUDGET = "budget", "a budget"
    WALL_LIMIT = "wall_limit", "its limit of time"
    MEMORY_LIMIT = "memory_limit", "its limit of memory"
    DISK_LIMIT = "disk_limit", "its limit of the disk"
    HUNG = "hung", "silence"
    RATE_LIMITED = "rate_limited", "its credential is paused"
    WORKSPACE_LOST = "workspace_lost", "its working copy is gone"
    SERVER = "server", "the server was shut down"


ARROWS: dict[State, tuple[State, ...]] = {
    State.QUEUED: (State.STARTING, State.STOPPING, State.ENDED),
    State.STARTING: (State.RUNNING, State.STOPPING, State.ENDED),
    State.RUNNING: (State.STOPPING, State.ENDED),
    State.STOPPING: (State.ENDED,),
    State.ENDED: (),
}
"""Every arrow of a session. Nothing else moves one."""
