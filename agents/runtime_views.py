"""The page of agent programs: whether each is fit on this host, why not, what to do, and a button that checks again."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from agents.services import preflight, readiness
from pipeline import conf
from pipeline.exceptions import Refused
from pipeline.roles import may
from pipeline.services import foreground
from pipeline.views import actor, posted, refused


@require_GET
def runtime_list(request: HttpRequest) -> HttpResponse:
    """Every runtime of this host, and what other hosts found; `?part=1` only what changes."""
    checks = may(request.user, "runtime.check", None)
    context = {
        "host": conf.host(),
        "programs": readiness.here(),
        "elsewhere": readiness.elsewhere() if checks else [],
        "may_check": checks,
        "runs_here": foreground.server_is_running(),
    }
    template = "agents/runtimes_part.html" if request.GET.get("part") else "agents/runtimes.html"
    return render(request, template, context)


@require_POST
def runtime_check(request: HttpRequest) -> HttpResponse:
    """Check the runtime `runtime`, or without a name all that agents use."""
    back = reverse("runtimes")
    try:
        for name in [posted(request, "runtime")] if posted(request, "runtime") else preflight.used():
            preflight.check(name, actor=actor(request))
    except Refused as error:
        return refused(request, error, back)
    return redirect(back)
