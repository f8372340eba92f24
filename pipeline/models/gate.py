"""One evaluation of a project's acceptance gate on one tree."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from pipeline.models.process import Process
from pipeline.models.story import Story


class GateState(models.TextChoices):
    QUEUED = "queued", "waiting"
    RUNNING = "running", "running"
    OVER = "over", "over"


class Verdict(models.TextChoices):
    PASSED = "passed", "passed"
    FAILED = "failed", "failed"
    ERRORED = "errored", "could not be run"
    SKIPPED = "skipped", "skipped"


class GateRun(models.Model):
    story = models.ForeignKey(Story, on_delete=models.CASCADE, related_name="gate_runs")
    purpose = models.CharField(max_length=10, help_text="coding, or merge")
    commit = models.CharField(max_length=64)
    tree = models.CharField(max_length=64)
    gate_hash = models.CharField(max_length=64)
    command = models.TextField()
    fence = models.PositiveBigIntegerField()
    state = models.CharField(max_length=10, choices=GateState.choices, default=GateState.QUEUED)
    verdict = models.CharField(max_length=10, choices=Verdict.choices, blank=True)
    reason = models.TextField(blank=True)
    output = models.TextField(blank=True, help_text="The end of what it printed, at most 8,000 characters.")
    tries = models.PositiveSmallIntegerField(default=0, help_text="Runs that were lost or could not be run.")
    process = models.ForeignKey(Process, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["story"], condition=~Q(state="over"), name="one_live_gate_run_per_story"
            ),
            models.CheckConstraint(
                condition=~Q(state="over") | ~Q(verdict=""), name="a_gate_run_that_is_over_has_a_verdict"
            ),
        ]
        indexes = [models.Index(fields=["tree", "gate_hash"], name="gate_verdict_by_tree")]

    def __str__(self) -> str:
        return f"gate on {self.tree[:8]}: {self.verdict or self.state}"
