"""What pages of stories ask about agents."""

from __future__ import annotations

from django import template

from agents.models import Agent
from agents.services.pool import STAGES
from agents.states import Role
from pipeline.models import Story

register = template.Library()


@register.filter
def fitting(story: Story) -> list[Agent]:
    """The agents that may be started on the story where it stands, in the file's order."""
    roles = [role for role, stages in STAGES.items() if story.stage in stages]
    return list(Agent.objects.filter(project=story.project_id, configured=True, role__in=roles))


@register.filter
def coders(story: Story) -> list[Agent]:
    """Whom the story may be assigned to."""
    return list(Agent.objects.filter(project=story.project_id, configured=True, role=Role.CODER))
