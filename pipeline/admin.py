"""The admin console: everything can be looked at; what services rule is read-only, and verbs are links to our own pages.

Django's admin wraps its POSTs in a transaction, so no verb is called from `save_model` (rules.md).
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html

from pipeline import models
from pipeline.services import stories
from pipeline.views import actor

admin.site.site_header = admin.site.site_title = "huskies"


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows that only services write."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(models.Story)
class StoryAdmin(ReadOnly):
    list_display = ("label", "title", "stage", "kind", "waiting_for", "open_page")
    list_filter = ("stage", "project", "kind", "frozen")
    search_fields = ("title", "number")
    list_select_related = ("project",)
    actions = ("archive_selected",)

    @admin.display(description="page")
    def open_page(self, story: models.Story) -> str:
        return format_html('<a href="{}">open</a>', reverse("story", args=[story.project.name, story.number]))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Stories are written on a board: the first project's, where the form is."""
        project = models.Project.objects.visible_to(request.user).order_by("name").first()
        return redirect("board", project.name) if project else redirect("project-add")

    def get_queryset(self, request: HttpRequest) -> Any:
        """Only stories of projects that the person may know of."""
        return (
            super().get_queryset(request).filter(project__in=models.Project.objects.visible_to(request.user))
        )

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_staff)

    @admin.action(description="Archive", permissions=["view"])
    def archive_selected(self, request: HttpRequest, queryset: Any) -> None:
        from pipeline.exceptions import Refused

        for story in queryset:
            try:
                stories.perform(story, "archive", actor=actor(request), why="from the admin")
            except Refused as error:
                self.message_user(request, error.message, level="error")


@admin.register(models.Project)
class ProjectAdmin(ReadOnly):
    list_display = ("name", "state", "source", "base_branch", "open_page")
    list_filter = ("state",)

    @admin.display(description="page")
    def open_page(self, project: models.Project) -> str:
        return format_html('<a href="{}">open</a>', reverse("project", args=[project.name]))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return redirect("project-add")


@admin.register(models.Capacity)
class CapacityAdmin(ReadOnly):
    """Draining is a verb with a history: the hosts page."""

    list_display = ("draining", "epoch")


@admin.register(models.Membership)
class MembershipAdmin(ReadOnly):
    list_display = ("project", "user", "role")


@admin.register(models.ProjectVersion)
class ProjectVersionAdmin(ReadOnly):
    list_display = ("project", "blob", "state", "created_at", "approved_by")
    list_filter = ("project", "state")


@admin.register(models.StageChange)
class StageChangeAdmin(ReadOnly):
    list_display = ("story", "verb", "from_stage", "to_stage", "actor", "at")
    list_filter = ("verb", "actor")


@admin.register(models.GateRun)
class GateRunAdmin(ReadOnly):
    list_display = ("story", "purpose", "state", "verdict", "created_at")
    list_filter = ("verdict", "purpose")


@admin.register(models.Merge)
class MergeAdmin(ReadOnly):
    list_display = ("story", "state", "tip", "candidate", "created_at")
    list_filter = ("state",)


@admin.register(models.Process)
class ProcessAdmin(ReadOnly):
    list_display = ("key", "kind", "state", "host", "story", "created_at")
    list_filter = ("kind", "state")


@admin.register(models.Host)
class HostAdmin(ReadOnly):
    list_display = ("name", "draining", "seen_at", "queue_seen_at", "suspect_since", "lost_at", "level")


@admin.register(models.Act)
class ActAdmin(ReadOnly):
    """What people and the server did outside any story."""

    list_display = ("at", "actor", "verb", "subject", "why")
    list_filter = ("verb", "actor")
    search_fields = ("subject", "why", "actor")
    ordering = ("-id",)
