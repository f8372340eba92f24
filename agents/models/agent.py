"""An agent: a configured worker of a project, one session at a time."""

from __future__ import annotations

from django.db import models

from agents.states import Role
from pipeline.models import Project


class Agent(models.Model):
    """Made from the project file; a row whose entry is gone stays for its history (`configured` = no)."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="agents")
    name = models.CharField(max_length=63)
    role = models.CharField(max_length=20, choices=Role.choices)
    runtime = models.CharField(max_length=30)
    model = models.CharField(max_length=100, blank=True)
    entry = models.JSONField(
        default=dict, help_text="The agent's entry in the project file (agents.agentfile)."
    )
    position = models.PositiveIntegerField(default=0)
    configured = models.BooleanField(default=True)
    paused_for = models.CharField(
        max_length=500, blank=True, help_text="Why it takes nothing new; empty = it works."
    )

    paused_by = models.CharField(
        max_length=150,
        blank=True,
        help_text="The person who paused it; empty = the server did, and a new project file ends that.",
    )

    class Meta:
        ordering = ["project_id", "position", "name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="agent_names_are_unique_in_a_project")
        ]

    def __str__(self) -> str:
        return self.name
