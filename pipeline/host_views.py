"""The page of the machines that run agents, for admins of the whole server."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from pipeline import shapes
from pipeline.exceptions import NotAllowed, NotFound, Refused
from pipeline.models import Act, Host
from pipeline.roles import may
from pipeline.services import hosts
from pipeline.views import actor, posted, refused

VERBS = {"drain": hosts.drain, "resume": hosts.resume, "lost": hosts.give_up}
ACTS_SHOWN = 50


@require_GET
def all_hosts(request: HttpRequest) -> HttpResponse:
    if not may(request.user, "host.edit", None):
        return refused(
            request, NotAllowed("Only an admin of the whole server sees its hosts."), reverse("home")
        )
    rows = [(host, shapes.host(host), hosts.silent_for(host)) for host in Host.objects.order_by("name")]
    acts = Act.objects.filter(subject__startswith="host ").order_by("-pk")[:ACTS_SHOWN]
    return render(request, "pipeline/hosts.html", {"hosts": rows, "acts": acts})


@require_POST
def host_do(request: HttpRequest) -> HttpResponse:
    """`host`, `verb` and `why` from the form."""
    verb = VERBS.get(posted(request, "verb"))
    try:
        if not may(request.user, "host.edit", None):
            raise NotAllowed("Only an admin of the whole server drains hosts or gives them up.")
        if verb is None:
            raise NotFound(f"Nothing called {posted(request, 'verb')!r} can be done with a host.")
        host = verb(posted(request, "host"), actor=actor(request), why=posted(request, "why"))
    except Refused as error:
        return refused(request, error, reverse("hosts"))
    messages.success(request, f"Host {host.name} is {shapes.host(host)['state']}.")
    return redirect("hosts")
