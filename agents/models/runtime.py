"""Whether an agent program is fit on a host: what the pre-flight found, or a session that could not begin."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from pipeline.models import Process


class Fitness(models.TextChoices):
    FIT = "fit", "fit"
    UNFIT = "unfit", "not fit"
    UNKNOWN = "unknown", "not known"


class RuntimeCheck(models.Model):
    """One row per host and runtime; nothing starts there with a runtime that is unfit.

    `fingerprint` is of what was looked at (services.preflight.fingerprint): with another one the row tells of another program.
    """

    host = models.CharField(max_length=255)
    runtime = models.CharField(max_length=30)
    state = models.CharField(max_length=10, choices=Fitness.choices, default=Fitness.UNKNOWN)
    reason = models.TextField(blank=True, help_text="Why it is not fit or not known, in its own words.")
    remedy = models.TextField(blank=True)
    warning = models.TextField(blank=True, help_text="It is fit, and this is odd.")
    told_by_session = models.BooleanField(default=False, help_text="A session could not begin; no check.")
    path = models.CharField(max_length=1000, blank=True)
    version = models.CharField(max_length=60, blank=True)
    logged_in = models.BooleanField(null=True, help_text="None: it needs no log-in, or nobody looked.")
    proved = models.JSONField(default=dict, help_text="What of flags, key, parser, sandbox the trial showed.")
    fingerprint = models.CharField(max_length=64, blank=True)
    seconds = models.FloatField(null=True, help_text="How long the trial took.")
    process = models.ForeignKey(Process, on_delete=models.SET_NULL, null=True, related_name="+")
    checked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["host", "runtime"]
        constraints = [
            models.UniqueConstraint(fields=["host", "runtime"], name="a_runtime_is_checked_once_per_host"),
            models.CheckConstraint(condition=Q(state__in=Fitness.values), name="fitness_is_known"),
            models.CheckConstraint(
                condition=~Q(state="unfit") | ~Q(reason=""), name="an_unfit_runtime_says_why"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.runtime} on {self.host}: {self.get_state_display()}"

    @property
    def sentence(self) -> str:
        """Why it is not fit, with what to do; for the story that waits."""
        return " ".join(part for part in (self.reason, self.remedy) if part)
