"""What agents may use at most: how many at once, how much money and how many tokens."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q

from pipeline.models import Project, Story


class Scope(models.TextChoices):
    SERVER = "server", "the whole server"
    HOST = "host", "a host"
    PROJECT = "project", "a project"
    USER = "user", "a person"
    ROLE = "role", "a role"
    MODEL = "model", "a model"
    AGENT = "agent", "an agent"
    REVIEW = "review", "stories that await a person's review, of a project"
    STORY = "story", "a story"


COUNTED = tuple(s for s in Scope if s != Scope.STORY)
PAID = (Scope.SERVER, Scope.PROJECT, Scope.USER, Scope.STORY)


class Limit(models.Model):
    """How many sessions may live at once. Rows are changed under the capacity lock; lowering one never kills.

    `subject`: the id of the host, project, user or agent, the role, or the model's name; "" = each that has no row of its own.
    The server's row has none; without a row HUSKIES_SERVER_LIMIT holds for the server, and nothing for the others.
    """

    scope = models.CharField(max_length=10, choices=[(s.value, s.label) for s in COUNTED])
    subject = models.CharField(max_length=100, blank=True)
    most = models.PositiveIntegerField()

    class Meta:
        ordering = ["scope", "subject"]
        constraints = [
            models.UniqueConstraint(fields=["scope", "subject"], name="one_limit_per_subject"),
            models.CheckConstraint(condition=Q(scope__in=COUNTED), name="limit_scope_is_known"),
            models.CheckConstraint(
                condition=~Q(scope=Scope.SERVER) | Q(subject=""), name="the_server_has_one_limit"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.subject or '(each)'}: {self.most}"


class Period(models.TextChoices):
    DAY = "day", "a day (UTC)"
    TOTAL = "total", "in all"


class Budget(models.Model):
    """What may be spent on agents. `subject` as in Limit; None = no limit of that kind."""

    scope = models.CharField(max_length=10, choices=[(s.value, s.label) for s in PAID])
    subject = models.CharField(max_length=100, blank=True)
    period = models.CharField(max_length=5, choices=Period.choices, default=Period.DAY)
    usd = models.DecimalField(max_digits=14, decimal_places=6, null=True, blank=True)
    tokens = models.PositiveBigIntegerField(null=True, blank=True)

    class Meta:
        ordering = ["scope", "subject", "period"]
        constraints = [
            models.UniqueConstraint(fields=["scope", "subject", "period"], name="one_budget_per_subject"),
            models.CheckConstraint(condition=Q(scope__in=PAID), name="budget_scope_is_known"),
            models.CheckConstraint(
                condition=Q(usd__isnull=False) | Q(tokens__isnull=False), name="a_budget_limits_something"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.subject or '(each)'} {self.period}: {self.usd or '-'} USD, {self.tokens or '-'} tokens"


class Spend(models.Model):
    """What a session used of a model on a day, summed from its ledger in the ledger's transaction: every sum of money is made of these rows.

    They outlive deleted stories, whose `session` and `story` are then empty. `tokens`: all kinds together; thinking is part of the output.
    """

    day = models.DateField(help_text="UTC")
    session = models.ForeignKey("agents.Session", on_delete=models.SET_NULL, null=True, related_name="+")
    story = models.ForeignKey(Story, on_delete=models.SET_NULL, null=True, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.SET_NULL, null=True, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    agent = models.CharField(max_length=63)
    model = models.CharField(max_length=100)
    usd = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    unpriced_usd = models.DecimalField(
        max_digits=14,
        decimal_places=6,
        default=0,
        help_text="Of it, what was counted as the dearest model's.",
    )
    tokens = models.PositiveBigIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cache_read_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_tokens = models.PositiveBigIntegerField(default=0)
    thinking_tokens = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["session", "day", "model"], name="a_session_spends_in_one_row_a_day"
            )
        ]
        indexes = [
            models.Index(fields=["day", "project"], name="spend_by_day"),
            models.Index(fields=["project", "day"], name="spend_of_project"),
            models.Index(fields=["user", "day"], name="spend_of_person"),
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.agent} {self.model}: ${self.usd}"


def applying(rows: dict[tuple[str, str], Any], scope: str, subject: object) -> Any:
    """The row for a subject, else the one for each; None without either. `rows`: (scope, subject) -> anything."""
    found = rows.get((scope, str(subject)))
    return found if found is not None else rows.get((scope, ""))
