"""Who works, on what, with which key, at what cost: one noun per file."""

from agents.models.agent import Agent
from agents.models.credential import Credential
from agents.models.limit import Budget, Limit, RuntimePause, Spend
from agents.models.session import LedgerRow, Session

__all__ = ["Agent", "Budget", "Credential", "LedgerRow", "Limit", "RuntimePause", "Session", "Spend"]
