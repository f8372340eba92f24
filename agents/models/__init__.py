"""Who works, on what, with which key, at what cost: one noun per file."""

from agents.models.agent import Agent
from agents.models.credential import Credential
from agents.models.limit import Budget, Limit, Spend
from agents.models.permission import Message, PermissionRequest
from agents.models.runtime import Fitness, RuntimeCheck
from agents.models.session import LedgerRow, Session

__all__ = [
    "Agent",
    "Budget",
    "Credential",
    "Fitness",
    "LedgerRow",
    "Limit",
    "Message",
    "PermissionRequest",
    "RuntimeCheck",
    "Session",
    "Spend",
]
