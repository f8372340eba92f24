"""Budgets: what may still be spent."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agents.models import Agent
from pipeline.models import Story


def refusal(story: Story, agent: Agent, person: Any, now: datetime) -> str:
    return ""
