"""The admin's view of agents and sessions; a session's page shows its live log with the same partial as our own."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from agents.models import Agent, Credential, Session
from agents.views import log_of
from pipeline.admin import ReadOnly
from pipeline.views import rights


@admin.register(Session)
class SessionAdmin(ReadOnly):
    list_display = ("id", "story", "agent", "role", "state", "outcome", "cost_usd", "started_at", "ended_at")
    list_filter = ("state", "outcome", "agent", "project")
    list_select_related = ("story__project", "agent")
    change_form_template = "admin/agents/session/change_form.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        row = (
            Session.objects.select_related("story__project", "agent", "process", "project")
            .filter(pk=object_id)
            .first()
            if object_id.isdecimal()
            else None
        )
        shown = {**rights(request, row.project), **log_of(row, request.GET.get("from"))} if row else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})


@admin.register(Agent)
class AgentAdmin(ReadOnly):
    list_display = ("name", "project", "role", "runtime", "model", "configured", "paused_for")
    list_filter = ("project", "role", "runtime", "configured")


@admin.register(Credential)
class CredentialAdmin(ReadOnly):
    list_display = ("name", "kind", "base_urls", "paused_for")
    exclude = ("sealed",)
