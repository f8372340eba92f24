"""What can be refused about agents and sessions."""

from __future__ import annotations

from pipeline.exceptions import Refused


class MustWait(Refused):
    """No fitting agent is free."""


class NoSuchAgent(Refused):
    """There is no such agent."""
