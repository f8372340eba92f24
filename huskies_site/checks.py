"""System checks that look across floors; `check --deploy` adds those of Django itself."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@register(Tags.security)
def open_to_the_network(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A server that others reach must know its address (hosts, origins), and must not show its insides."""
    if settings.HUSKIES_BIND[0] in LOOPBACK:
        return []
    found: list[CheckMessage] = []
    if not settings.HUSKIES_URL:
        found.append(
            Warning(
                f"HUSKIES_BIND is {settings.HUSKIES_BIND[0]}, which other machines reach, but HUSKIES_URL is not set.",
                hint="Set HUSKIES_URL to the address that people type, such as https://huskies.example.org.",
                id="huskies.W001",
            )
        )
    if settings.DEBUG:
        found.append(
            Error(
                "HUSKIES_DEBUG is on while other machines reach this server: every error page would show its insides.",
                hint="Remove HUSKIES_DEBUG, or set HUSKIES_BIND to 127.0.0.1:8000.",
                id="huskies.E001",
            )
        )
    return found


@register()
def agents_run_without_confinement(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not settings.HUSKIES_UNCONFINED:
        return []
    return [
        Warning(
            "HUSKIES_UNCONFINED is on: every project's agents may run without bubblewrap.",
            hint="Install bubblewrap and remove it, or allow single projects on their pages.",
            id="huskies.W002",
        )
    ]
