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

ARROWS: dict[State, tuple[State, ...]] = {
    State.QUEUED: (State.STARTING, State.STOPPING, State.ENDED),
    State.STARTING: (State.RUNNING, State.STOPPING, State.ENDED),
    State.RUNNING: (State.STOPPING, State.ENDED),
    State.STOPPING: (State.ENDED,),
    State.ENDED: (),
}
"""Every arrow of a session. Nothing else moves one."""
