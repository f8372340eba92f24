"""The admin's view of agents and sessions; a session's page shows its live log with the same partial as our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html

from agents.agent_views import group_of, offered_of, offers
from agents.models import (
    Agent,
    Budget,
    Credential,
    Limit,
    Message,
    PermissionRequest,
    RuntimeCheck,
    Session,
    Spend,
)
from agents.services import faces, permissions, roster, telling
from agents.talk_views import talk_of
from agents.views import log_of
from pipeline.admin import ReadOnly
from pipeline.exceptions import Refused
from pipeline.views import actor, rights


@admin.register(Session)
class SessionAdmin(ReadOnly):
    list_display = (
        "id", "story", "agent", "role", "state", "outcome", "stop_cause", "throttled", "cost_usd", "started_at", "ended_at",
    )  # fmt: skip
    list_filter = ("state", "outcome", "stop_cause", "agent", "project")
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
        shown: dict[str, Any] = {}
        if row:
            log = log_of(row, request.GET.get("from"))
            shown = {**rights(request, row.project), **log, **talk_of(request, row)}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})


@admin.register(PermissionRequest)
class PermissionRequestAdmin(ReadOnly):
    """Answered here as on the session's page: by the verb that writes the history."""

    list_display = ("id", "session", "tool", "subject", "state", "answered_by", "asked_at", "deadline")
    list_filter = ("state", "tool", "session__project")
    list_select_related = ("session__agent", "session__project")
    actions = ("allow_selected", "deny_selected")

    @admin.action(description="Allow once", permissions=["view"])
    def allow_selected(self, request: HttpRequest, queryset: QuerySet[PermissionRequest]) -> None:
        self.answer(request, queryset, allow=True)

    @admin.action(description="Deny", permissions=["view"])
    def deny_selected(self, request: HttpRequest, queryset: QuerySet[PermissionRequest]) -> None:
        self.answer(request, queryset, allow=False)

    def answer(self, request: HttpRequest, rows: QuerySet[PermissionRequest], *, allow: bool) -> None:
        done = 0
        for row in rows.select_related("session__story__project", "session__project"):
            try:
                permissions.answer(row, allow=allow, actor=actor(request))
                telling.tell(row.session_id)
                done += 1
            except Refused as error:
                self.message_user(request, error.message, level="error")
        if done:
            self.message_user(request, f"{'Allowed' if allow else 'Denied'}: {done}.")


@admin.register(Message)
class MessageAdmin(ReadOnly):
    list_display = ("id", "session", "author", "text", "state", "at", "told_at")
    list_filter = ("state", "session__project")
    list_select_related = ("session",)


@admin.register(Agent)
class AgentAdmin(ReadOnly):
    """Its page has the buttons of our own pages; the list can pause, resume and stop several at once."""

    list_display = ("name", "project", "role", "runtime", "model", "configured", "paused_for", "paused_by")
    list_filter = ("project", "role", "runtime", "configured")
    list_select_related = ("project",)
    actions = ("pause_selected", "resume_selected", "stop_selected")
    change_form_template = "admin/agents/agent/change_form.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        rows = Agent.objects.filter(pk=object_id) if object_id.isdecimal() else Agent.objects.none()
        shown = faces.of_agents(rows)
        more: dict[str, Any] = {}
        if shown:
            agent = shown[0].agent
            offered = offers(agent.role, offered_of([agent.project]))
            more = {"group": group_of(request, agent.project), "face": shown[0], "offers": offered}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **more})

    @admin.action(description="Pause", permissions=["view"])
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        self.each(request, queryset, lambda agent: roster.pause_agent(agent, actor=actor(request)), "Paused")

    @admin.action(description="Resume", permissions=["view"])
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        self.each(
            request, queryset, lambda agent: roster.resume_agent(agent, actor=actor(request)), "Resumed"
        )

    @admin.action(description="Stop what they run", permissions=["view"])
    def stop_selected(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        self.each(
            request, queryset, lambda agent: roster.stop_agent(agent, actor=actor(request)), "Asked to stop"
        )

    def each(
        self, request: HttpRequest, agents: QuerySet[Agent], act: Callable[[Agent], object], past: str
    ) -> None:
        done = []
        for agent in agents.select_related("project"):
            try:
                act(agent)
                done.append(roster.label(agent))
            except Refused as error:
                self.message_user(request, error.message, level="error")
        if done:
            self.message_user(request, f"{past}: {', '.join(done)}.")


class OnOurPage(ReadOnly):
    """Limits and budgets are changed on the page that shows their use, by the verbs that write the history."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return redirect("limits")

    @admin.display(description="page")
    def open_page(self, row: Any) -> str:
        return format_html('<a href="{}">change</a>', reverse("limits"))


@admin.register(Limit)
class LimitAdmin(OnOurPage):
    list_display = ("scope", "subject", "most", "open_page")
    list_filter = ("scope",)


@admin.register(Budget)
class BudgetAdmin(OnOurPage):
    list_display = ("scope", "subject", "period", "usd", "tokens", "open_page")
    list_filter = ("scope", "period")


@admin.register(Spend)
class SpendAdmin(ReadOnly):
    list_display = ("day", "project", "user", "agent", "model", "usd", "tokens")
    list_filter = ("day", "project", "model")


@admin.register(RuntimeCheck)
class RuntimeCheckAdmin(ReadOnly):
    list_display = ("host", "runtime", "state", "version", "reason", "checked_at")
    list_filter = ("state", "host")


@admin.register(Credential)
class CredentialAdmin(ReadOnly):
    list_display = ("name", "kind", "base_urls", "paused_for", "paused_until", "throttled_until")
    exclude = ("sealed",)
