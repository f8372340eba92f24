"""One attempt to land a story on its project's branch."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from pipeline.models.gate import GateRun
from pipeline.models.process import Process
from pipeline.models.project import Project
from pipeline.models.story import Story


class MergeState(models.TextChoices):
    PREPARING = "preparing", "is being squashed"
    GATING = "gating", "the gate runs on the merged tree"
    LANDING = "landing", "is being pushed"
    WAITING = "waiting", "waits to be pushed again"
    PROBING = "probing", "it is being looked whether it landed"
    LANDED = "landed", "landed"
    FAILED = "failed", "failed"
    REPLACED = "replaced", "the branch moved: merged again"


OVER = (MergeState.LANDED, MergeState.FAILED, MergeState.REPLACED)


class Merge(models.Model):
    story = models.ForeignKey(Story, on_delete=models.CASCADE, related_name="merges")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="merges")
    key = models.CharField(
        max_length=20, unique=True, help_text="The candidate stands at refs/huskies/merges/<key>."
    )
    fence = models.PositiveBigIntegerField()
    state = models.CharField(max_length=10, choices=MergeState.choices, default=MergeState.PREPARING)
    tip = models.CharField(max_length=64, help_text="The story's commit that is landed.")
    expected = models.CharField(
        max_length=64, blank=True, help_text="The base branch's commit that the gate ran on."
    )
    candidate = models.CharField(max_length=64, blank=True)
    tree = models.CharField(max_length=64, blank=True)
    reason = models.TextField(blank=True)
    files = models.JSONField(default=list, help_text="The files in conflict.")
    tries = models.PositiveIntegerField(default=0)
    next_try = models.DateTimeField(null=True)
    gate_run = models.ForeignKey(GateRun, on_delete=models.SET_NULL, null=True, related_name="+")
    process = models.ForeignKey(Process, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project"],
                condition=~Q(state__in=["landed", "failed", "replaced"]),
                name="one_live_merge_per_project",
            ),
            models.CheckConstraint(
                condition=~Q(state="landed") | ~Q(candidate=""), name="a_landed_merge_names_its_commit"
            ),
        ]

    def __str__(self) -> str:
        return f"merge of story {self.story_id}: {self.state}"
