"""A child program under a runner, and its log, as people read it."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

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
        return self.unhandled().filter(state__in=[ProcessState.PREPARED, ProcessState.RUNNING])

    def unhandled(self) -> ProcessQuerySet:
        """As the index `process_by_host` says it: those that are over are never looked through."""
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


class LogPart(models.Model):
    """Consecutive events of a process's log; `pipeline.logevents` alone writes and reads them."""

    # The constraint's own index begins with it: a second one would be written with every row.
    process = models.ForeignKey(Process, on_delete=models.CASCADE, related_name="log_parts", db_index=False)
    first_seq = models.PositiveBigIntegerField()
    last_seq = models.PositiveBigIntegerField()
    events = models.TextField(help_text="JSON: [[kind, body, microseconds since 1970], ...].")

    class Meta:
        ordering = ["process_id", "first_seq"]
        constraints = [
            models.UniqueConstraint(fields=["process", "first_seq"], name="events_are_numbered_once"),
            models.CheckConstraint(condition=Q(first_seq__lte=F("last_seq")), name="log_part_has_events"),
        ]

    def __str__(self) -> str:
        return f"{self.process_id}#{self.first_seq}-{self.last_seq}"
