"""What pages of stories ask about agents."""

from __future__ import annotations

from typing import Any

from django import template

from agents.models import Agent, PermissionRequest
from agents.runtimes.bounds import mapping, readable
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


@register.filter
def edit_lines(ask: PermissionRequest) -> list[dict[str, str]]:
    """What is asked for as lines with their kind: of an edit what goes (`del`) and what comes (`add`), else the arguments."""
    given: dict[str, Any] = mapping(ask.arguments)
    old, new = given.get("old_string"), given.get("new_string", given.get("content"))
    if isinstance(new, str):
        gone = old.splitlines() if isinstance(old, str) else []
        lines = [("del", f"- {line}") for line in gone] + [("add", f"+ {line}") for line in new.splitlines()]
        rest = {k: v for k, v in given.items() if k not in ("old_string", "new_string", "content")}
        lines = [("at", f"{name}: {readable(value)}") for name, value in rest.items()] + lines
    elif isinstance(command := given.get("command"), str):
        lines = [("", line) for line in command.splitlines()]
    else:
        lines = [("", line) for line in readable(given).splitlines()]
    return [{"kind": kind, "text": text} for kind, text in lines]
