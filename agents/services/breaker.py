"""One circuit breaker per credential: what keeps every start with it back."""

from __future__ import annotations

from agents.services.logins import hindrance

__all__ = ["hindrance"]
