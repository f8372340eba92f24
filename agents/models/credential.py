"""A key to a model provider, encrypted at rest with a key that is not in the database."""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models


class CredentialKind(models.TextChoices):
    API_KEY = "api_key", "API key"
    OAUTH_TOKEN = "oauth_token", "OAuth token"
    HOST_LOGIN = "host_login", "the host's own log-in"


class Credential(models.Model):
    name = models.CharField(
        max_length=63,
        unique=True,
        validators=[RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9._-]*$", "Letters, digits, dots and dashes.")],
    )
    kind = models.CharField(max_length=20, choices=CredentialKind.choices, default=CredentialKind.API_KEY)
    sealed = models.TextField(blank=True, editable=False, help_text="The encrypted value (agents.sealing).")
    base_urls = models.JSONField(
        default=list, help_text="The addresses it may be sent to; empty = the provider's own only."
    )
    paused_for = models.CharField(
        max_length=500, blank=True, help_text="Why nothing starts with it: refused, or out of money."
    )
    paused_until = models.DateTimeField(null=True, blank=True)
    throttled_until = models.DateTimeField(
        null=True, blank=True, help_text="The provider warned: it is near its limit until then."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name
