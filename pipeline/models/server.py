"""The server as a whole, and its hosts: what can be counted and limited."""

from __future__ import annotations

from django.db import models


class Capacity(models.Model):
    """The one row (pk=1) that every claim and every change of a limit locks first (rules.md, Claims and fences)."""

    limit = models.PositiveIntegerField(
        default=8, help_text="How many agents may run at once on the whole server."
    )
    epoch = models.PositiveBigIntegerField(
        default=0,
        help_text="Grows with every `up`; a smaller one than the data folder's means a restored backup.",
    )
    draining = models.BooleanField(default=False, help_text="Nothing new is started while set.")

    class Meta:
        verbose_name_plural = "capacity"
        constraints = [models.CheckConstraint(condition=models.Q(pk=1), name="capacity_is_one_row")]

    def __str__(self) -> str:
        return f"at most {self.limit} agents at once"

    @classmethod
    def lock(cls) -> Capacity:
        """The row, locked until the transaction ends. Counts and limits are read by later statements only."""
        return cls.objects.select_for_update().get(pk=1)


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

    def __str__(self) -> str:
        return self.name
