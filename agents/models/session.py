"""A session: one run of an agent on a story, from claim to end; and what each of its requests cost."""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import Q

from agents.models.agent import Agent
from agents.models.credential import Credential
from agents.states import LIVE, Outcome, Role, State, StopCause
from pipeline.models import Process, Project, Story
from pipeline.models.story import lock_story
from pipeline.processes.confine import is_confined

CENT = Decimal("0.01")


class SessionQuerySet(models.QuerySet["Session"]):
    def live(self) -> SessionQuerySet:
        """Said in two ways: by the second, databases see that the index `session_live` has all of them; by the first they find them in it."""
        return self.filter(state__in=LIVE).exclude(state=State.ENDED)

    def locked(self) -> Session:
        """The one row, locked after its story, in a transaction. Everybody locks in this order, else two could wait for each other for ever."""
        lock_story(self.values_list("story_id", flat=True).get())
        return self.select_for_update(of=("self",), no_key=True).get()


class Session(models.Model):
    story = models.ForeignKey(Story, on_delete=models.CASCADE, related_name="sessions")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="sessions")
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="sessions")
    role = models.CharField(max_length=20, choices=Role.choices)
    runtime = models.CharField(max_length=30)
    model = models.CharField(max_length=100, blank=True)
    entry = models.JSONField(default=dict, help_text="The agent's entry with which it began.")
    credential = models.ForeignKey(Credential, on_delete=models.SET_NULL, null=True, related_name="sessions")
    key = models.CharField(max_length=20, unique=True)
    fence = models.PositiveBigIntegerField()
    host = models.CharField(max_length=255)
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        help_text="The person it works for: who pressed start, else the story's owner.",
    )

    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    process = models.ForeignKey(Process, on_delete=models.SET_NULL, null=True, related_name="sessions")
    saving = models.ForeignKey(
        Process, on_delete=models.SET_NULL, null=True, related_name="+", help_text="The intake of its work."
    )
    conversation = models.CharField(max_length=36)
    resumed = models.BooleanField(default=False, help_text="It continues a conversation.")
    resume_note = models.CharField(max_length=300, blank=True, help_text="Why it is warm or cold.")
    prompt = models.TextField(blank=True)
    base = models.CharField(max_length=64, blank=True)
    began_at_commit = models.CharField(
        max_length=64, blank=True, help_text="The commit from which its copy was made."
    )
    sandbox = models.CharField(max_length=20, blank=True)
    stop_requested_at = models.DateTimeField(null=True)
    stop_requested_by = models.CharField(max_length=150, blank=True)
    stop_cause = models.CharField(
        max_length=20, choices=StopCause.choices, blank=True, help_text="Why it was asked to stop."
    )
    told = models.JSONField(
        null=True, help_text="What the runtime's parser said of the end: kind, reason, until."
    )

    turns = models.PositiveIntegerField(default=0, help_text="The model's turns so far.")
    tool_turns = models.PositiveIntegerField(default=0, help_text="Those of them that used a tool.")
    peak_memory = models.PositiveBigIntegerField(default=0, help_text="Bytes, of all its processes together.")
    throttled = models.BooleanField(default=False, help_text="The provider warned that a limit is near.")
    snapshot = models.CharField(
        max_length=64,
        blank=True,
        help_text="The commit that keeps its files as they were when it was warned.",
    )
    warned_at = models.DateTimeField(null=True, help_text="When it was told that a limit of its own is near.")
    suspect_since = models.DateTimeField(null=True, help_text="Since when nothing is heard of its host.")
    news_upto = models.PositiveBigIntegerField(
        default=0, help_text="The last event of its project that it, or what went before it, was told."
    )

    outcome = models.CharField(max_length=20, choices=Outcome.choices, blank=True)
    reason = models.TextField(blank=True)
    saved = models.CharField(
        max_length=64, blank=True, help_text="The commit at refs/huskies/sessions/<key>."
    )
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cache_read_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_tokens = models.PositiveBigIntegerField(default=0)
    thinking_tokens = models.PositiveBigIntegerField(default=0, help_text="Of the output, and priced as it.")
    cost_usd = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    reported_cost_usd = models.DecimalField(
        max_digits=14, decimal_places=6, null=True, help_text="The program's own figure."
    )
    reconciled_cost_usd = models.DecimalField(
        max_digits=14, decimal_places=6, null=True, help_text="Ours when the program said its own."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    objects = SessionQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            # An agent is one slot: it never works on two stories.
            models.UniqueConstraint(
                fields=["agent"], condition=Q(state__in=LIVE), name="one_live_session_per_agent"
            ),
            # Two coders never share a story; `other` (a supervisor, say) may look on.
            models.UniqueConstraint(
                fields=["story", "role"],
                condition=Q(state__in=LIVE) & ~Q(role="other"),
                name="one_live_session_per_story_and_role",
            ),
            # `other` agents look on under the fence that holds: their start must not make a coder's result stale.
            models.UniqueConstraint(
                fields=["story", "fence"], condition=~Q(role="other"), name="a_fence_is_given_out_once"
            ),
            models.CheckConstraint(
                condition=Q(outcome__in=["", *Outcome.values]), name="session_outcome_is_known"
            ),
            models.CheckConstraint(condition=Q(state__in=State.values), name="session_state_is_known"),
            models.CheckConstraint(
                condition=~Q(state="ended") | ~Q(outcome=""), name="an_ended_session_has_an_outcome"
            ),
        ]
        indexes = [
            models.Index(fields=["state", "project"], name="session_live", condition=~Q(state="ended")),
            models.Index(fields=["started_by", "id"], name="session_by_person"),
            models.Index(fields=["project", "id"], name="session_by_project"),
        ]

    def __str__(self) -> str:
        return f"session {self.pk} of {self.agent_id} on {self.story_id} ({self.state})"

    @property
    def confined(self) -> bool:
        return is_confined(self.sandbox)

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def cost_difference(self) -> Decimal | None:
        """By how much the program's own figure is more than ours of the same moment; None where it says none."""
        if self.reported_cost_usd is None or self.reconciled_cost_usd is None:
            return None
        return self.reported_cost_usd - self.reconciled_cost_usd

    @property
    def cost_differs(self) -> bool:
        """By more than a cent and more than one per cent of the larger figure: one of the two counts wrongly."""
        if self.cost_difference is None:
            return False
        larger = max(self.reported_cost_usd or Decimal(0), self.reconciled_cost_usd or Decimal(0))
        return abs(self.cost_difference) > max(CENT, larger / 100)


class LedgerRow(models.Model):
    """What one request to a model used; written while the session runs, so that killed runs count."""

    # Found by the constraint's index, as events are.
    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="ledger", db_index=False)
    seq = models.PositiveBigIntegerField(help_text="The log event it stands in.")
    request_id = models.CharField(max_length=100, blank=True)
    model = models.CharField(max_length=100)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cache_read_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_tokens = models.PositiveBigIntegerField(default=0)
    thinking_tokens = models.PositiveBigIntegerField(default=0, help_text="Of the output, and priced as it.")
    cost_usd = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    price_unknown = models.BooleanField(
        default=False, help_text="Its model had no price: counted as the dearest."
    )
    at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["session", "seq"], name="a_request_is_booked_once")]

    def __str__(self) -> str:
        return f"{self.model}: ${self.cost_usd}"
