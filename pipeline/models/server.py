"""The server as a whole, and its hosts: what can be counted and limited."""

from __future__ import annotations

from django.db import models

from pipeline.prepared import Select


class Capacity(models.Model):
    """The one row (pk=1) that every claim and every change of a limit locks first (rules.md, Claims and fences)."""

    epoch = models.PositiveBigIntegerField(
        default=0,
        help_text="Grows with every `up`; a smaller one than the data folder's means a restored backup.",
    )
    draining = models.BooleanField(default=False, help_text="Nothing new is started while set.")

    class Meta:
        verbose_name_plural = "capacity"
        constraints = [models.CheckConstraint(condition=models.Q(pk=1), name="capacity_is_one_row")]

    def __str__(self) -> str:
        return "draining: it starts nothing new" if self.draining else "starting what is asked for"

    @classmethod
    def lock(cls) -> Capacity:
        """The row, locked until the transaction ends. Counts and limits are read by later statements only."""
        row = LOCKED.first()
        if row is None:
            raise cls.DoesNotExist(
                "The one row of the server's capacity is missing; `./huskies migrate` makes it."
            )
        return row


LOCKED: Select[Capacity] = Select(lambda: Capacity.objects.select_for_update(no_key=True).filter(pk=1))


class Act(models.Model):
    """What a person or the server did outside any story: a limit changed, an agent paused, a host drained. Rows are never edited."""

    actor = models.CharField(max_length=150, help_text="A person's name, or `server`.")
    verb = models.CharField(max_length=30)
    subject = models.CharField(
        max_length=300, help_text="Such as `agent web/coder-1` or `the server's limit`."
    )
    why = models.TextField(blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.actor}: {self.verb} {self.subject}"


class Host(models.Model):
    """A machine that runs children. `seen_at` is the supervisor's heartbeat, `queue_seen_at` the task queue's."""

    name = models.CharField(max_length=255, unique=True)
    boot_id = models.CharField(max_length=64, blank=True)
    seen_at = models.DateTimeField(null=True)
    queue_seen_at = models.DateTimeField(null=True)
    supervisor_pid = models.PositiveIntegerField(null=True)
    level = models.CharField(
        max_length=20, blank=True, help_text="The strongest confinement that works here."
    )
    level_reason = models.TextField(blank=True)
    draining = models.BooleanField(default=False, help_text="It finishes what runs and takes nothing new.")
    suspect_since = models.DateTimeField(
        null=True,
        editable=False,
        help_text="Since when nothing is heard of it; its sessions are kept for it.",
    )
    lost_at = models.DateTimeField(
        null=True, editable=False, help_text="When it was given up: its sessions were ended as lost."
    )

    def __str__(self) -> str:
        return self.name
