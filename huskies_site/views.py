"""The pages that span both apps: home, the demo's button, one-time links, health."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.db import connection
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from agents.models import PermissionRequest
from agents.models.permission import Asking
from huskies_site import loginlinks, rounds
from pipeline import conf
from pipeline.doctor import HEALED
from pipeline.exceptions import NotAllowed, Refused
from pipeline.models import Act, Host, Project, ProjectVersion, Story
from pipeline.roles import may
from pipeline.services import hosts
from pipeline.stages import NEEDS_A_PERSON, Stage
from pipeline.views import actor, refused


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """The projects, and what needs a person."""
    projects = Project.objects.visible_to(request.user).order_by("name")
    waits = Q(stage__in=NEEDS_A_PERSON) | Q(stage=Stage.QA) | ~Q(needs_approval="")
    needs = Story.objects.filter(waits, project__in=projects).exclude(stage__in=[Stage.DONE, Stage.ARCHIVED])
    context = {
        "projects": projects,
        "needs": needs.select_related("project").order_by("stage_at")[:50],
        "asks": PermissionRequest.objects.filter(session__project__in=projects, state=Asking.WAITING)
        .select_related("session__project", "session__agent", "session__story")
        .order_by("id")[:50],
        "may_add": may(request.user, "project.add", None),
        "proposed": ProjectVersion.objects.filter(project__in=projects, state="proposed").select_related(
            "project"
        ),
    }
    return render(request, "home.html", context)


@require_POST
def demo(request: HttpRequest) -> HttpResponse:
    """The button on the empty home page."""
    if not may(request.user, "demo.start", None):
        return refused(
            request, NotAllowed("Only an admin of the whole server starts the demo."), reverse("home")
        )
    from huskies_site.demo import start_demo

    try:
        project = start_demo(actor(request))
    except Refused as error:
        return refused(request, error, reverse("home"))
    return redirect("board", project.name)


@require_GET
def doctor(request: HttpRequest) -> HttpResponse:
    """What the last round of the doctor found, and what it healed."""
    if not may(request.user, "host.edit", None):
        return refused(
            request, NotAllowed("Only an admin of the whole server sees the doctor."), reverse("home")
        )
    healed = Act.objects.filter(verb=HEALED).order_by("-pk")[:50]
    context = {"last": rounds.last(), "healed": healed, "supervised": hosts.runs_here()}
    return render(request, "doctor.html", context)


@login_not_required
@require_http_methods(["GET", "POST"])
def login_link(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows a button (a mail program may look at a link), POST logs in, once."""
    if request.method == "POST":
        user = loginlinks.redeem(token)
        if user is not None:
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
            return redirect("home")
    user = loginlinks.look(token)
    return render(request, "registration/login_link.html", {"who": user}, status=200 if user else 410)


@login_not_required
@require_GET
def health(request: HttpRequest) -> JsonResponse:
    """For a monitor: whether the database answers, and the parts were seen of late. Says no names and no numbers of the inside."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    late = timezone.now() - timedelta(seconds=30)
    host = Host.objects.filter(name=conf.host()).first()
    supervisor = hosts.runs_here(30)
    queue = bool(host and host.queue_seen_at and host.queue_seen_at > late)
    return JsonResponse(
        {"database": True, "supervisor": supervisor, "queue": queue}, status=200 if supervisor else 503
    )
