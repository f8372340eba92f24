"""What an agent asks for while it works, and what people say to it: intents first, told by the runner's socket afterwards."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q

from agents.models.session import Session
from agents.runtimes.bounds import CUT


class Asking(models.TextChoices):
    WAITING = "waiting", "waits for an answer"
    ALLOWED = "allowed", "allowed"
    DENIED = "denied", "denied"
    TIMED_OUT = "timed_out", "denied: nobody answered in time"
    WITHDRAWN = "withdrawn", "withdrawn: it no longer waits"


ANSWERED = (Asking.ALLOWED, Asking.DENIED, Asking.TIMED_OUT)


class PermissionRequest(models.Model):
    """One call of a tool that an agent waits to be allowed. The first answer stands; `told_at`: when the runner had it."""

    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="requests")
    request_id = models.CharField(max_length=100, help_text="The agent program's own id of it.")
    tool = models.CharField(max_length=100)
    subject = models.TextField(blank=True, help_text="The command or path: what rules look at.")
    arguments = models.JSONField(default=dict, help_text="Masked and shortened.")
    text = models.TextField(blank=True, help_text="What the agent program says of it.")
    keep = models.JSONField(default=dict, help_text="What its answer needs.")
    asked_at = models.DateTimeField()
    deadline = models.DateTimeField()
    state = models.CharField(max_length=10, choices=Asking.choices, default=Asking.WAITING)
    scope = models.CharField(
        max_length=7, choices=[("once", "once"), ("session", "this session")], blank=True
    )
    answered_by = models.CharField(max_length=200, blank=True, help_text="A person, a rule, or `server`.")
    answered_at = models.DateTimeField(null=True)
    reason = models.TextField(blank=True)
    told_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["session", "request_id"], name="a_request_is_asked_once"),
            models.CheckConstraint(condition=Q(state__in=Asking.values), name="request_state_is_known"),
            models.CheckConstraint(
                condition=Q(state=Asking.WAITING, answered_at=None)
                | ~Q(state=Asking.WAITING) & Q(answered_at__isnull=False),
                name="an_answered_request_says_when",
            ),
        ]
        indexes = [
            models.Index(fields=["deadline"], name="request_waits", condition=Q(state="waiting")),
            models.Index(
                fields=["session"], name="request_untold", condition=Q(state__in=ANSWERED, told_at=None)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tool} {self.subject[:80]} of session {self.session_id} ({self.state})"

    def as_event(self) -> dict[str, Any]:
        """The body of its `permission` event, for the runtime's answer."""
        return {
            "id": self.request_id,
            "tool": self.tool,
            "input": self.arguments,
            "text": self.text,
            "keep": self.keep,
        }

    @property
    def is_cut(self) -> bool:
        """Whether something of its arguments is not shown."""
        return CUT.strip() in str(self.arguments)


class Said(models.TextChoices):
    WAITING = "waiting", "waits to be passed on"
    TOLD = "told", "passed on"


class Message(models.Model):
    """What a person says to an agent. `session`: the one it was written to; `told_in`: the one that had it, or is just getting it.

    One that was not passed on while its session ran goes to the agent's next session on the story, in its prompt.
    """

    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="messages")
    told_in = models.ForeignKey(Session, on_delete=models.SET_NULL, null=True, related_name="heard")
    author = models.CharField(max_length=150)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    text = models.TextField()
    interrupts = models.BooleanField(default=False, help_text="The turn under way is ended for it.")
    state = models.CharField(max_length=10, choices=Said.choices, default=Said.WAITING)
    at = models.DateTimeField(auto_now_add=True)
    told_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=Said.values), name="message_state_is_known"),
            models.CheckConstraint(
                condition=Q(state=Said.WAITING, told_at=None) | Q(state=Said.TOLD, told_at__isnull=False),
                name="a_told_message_says_when",
            ),
        ]
        indexes = [models.Index(fields=["session"], name="message_waits", condition=Q(state="waiting"))]

    def __str__(self) -> str:
        return f"{self.author} to session {self.session_id}: {self.text[:60]} ({self.state})"
