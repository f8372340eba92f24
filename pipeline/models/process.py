"""A child program under a runner, and the numbered events of its log."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from pipeline.models.project import Project
from pipeline.models.story import Story


class ProcessState(models.TextChoices):
    PREPARED = "prepared", "about to start"
    RUNNING = "running", "running"
    EXITED = "exited", "ended, result not yet handled"
    LOST = "lost", "its runner died"
    HANDLED = "handled", "over"


class ProcessQuerySet(models.QuerySet["Process"]):
    def live(self) -> ProcessQuerySet:
        return self.filter(state__in=[ProcessState.PREPARED, ProcessState.RUNNING])

    def unhandled(self) -> ProcessQuerySet:
        return self.exclude(state=ProcessState.HANDLED)


class Process(models.Model):
    """Committed before the fork. `kind` names the handler in `pipeline.kinds`; `request` holds no secret."""

    key = models.CharField(max_length=20, unique=True)
    kind = models.CharField(max_length=20)
    host = models.CharField(max_length=255)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="processes")
    story = models.ForeignKey(Story, on_delete=models.CASCADE, null=True, related_name="processes")
    fence = models.PositiveBigIntegerField(default=0)
    request = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=ProcessState.choices, default=ProcessState.PREPARED)
    pid = models.PositiveIntegerField(null=True)
    start_time = models.PositiveBigIntegerField(
        null=True, help_text="Clock ticks since boot, /proc/<pid>/stat field 22."
    )
    boot_id = models.CharField(max_length=64, blank=True)
    offset = models.PositiveBigIntegerField(default=0, help_text="Bytes of the log that are in the database.")
    parser_state = models.JSONField(default=dict)
    last_seq = models.PositiveBigIntegerField(default=0)
    main_started = models.BooleanField(default=False)
    exit = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    objects = ProcessQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "processes"
        constraints = [
            models.CheckConstraint(condition=Q(state__in=ProcessState.values), name="process_state_is_known")
        ]
        indexes = [
            models.Index(fields=["host", "state"], name="process_by_host", condition=~Q(state="handled"))
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.key} ({self.state})"


class LogEvent(models.Model):
    """One numbered event of a process's log: what people read. `seq` is dense: 1, 2, 3 ... from its single writer."""

    # The constraint's own index begins with it: a second one would be written with every line.
    process = models.ForeignKey(Process, on_delete=models.CASCADE, related_name="events", db_index=False)
    seq = models.PositiveBigIntegerField()
    kind = models.CharField(max_length=20)
    body = models.JSONField(default=dict)
    at = models.DateTimeField()

    class Meta:
        ordering = ["process_id", "seq"]
        constraints = [models.UniqueConstraint(fields=["process", "seq"], name="events_are_numbered_once")]

    def __str__(self) -> str:
        return f"{self.process_id}#{self.seq} {self.kind}"
