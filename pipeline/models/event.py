"""What happened in a project, in commit order: the news that boards and story pages read after their cursor."""

from __future__ import annotations

from django.db import models

from pipeline.models.project import Project
from pipeline.models.story import Story


class EventCounter(models.Model):
    """The last number given out in a project. Taken by the last statement of a transaction, so that number order is commit order."""

    project = models.OneToOneField(
        Project, on_delete=models.CASCADE, primary_key=True, related_name="event_counter"
    )
    number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.project_id}: {self.number}"


class Event(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="events")
    number = models.PositiveBigIntegerField()
    story = models.ForeignKey(Story, on_delete=models.CASCADE, null=True, related_name="events")
    kind = models.CharField(max_length=30)
    text = models.TextField(blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["project_id", "number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="news_is_numbered_once_per_project")
        ]

    def __str__(self) -> str:
        return f"{self.project_id}#{self.number} {self.kind}"
