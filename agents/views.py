"""Pages of sessions and credentials, and the two verbs that need an agent: start and stop."""

from __future__ import annotations

from itertools import islice

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from agents import prices
from agents.forms import CredentialForm
from agents.models import Credential, RuntimeCheck, Session
from agents.runtimes import RUNTIMES
from agents.services import breaker, credentials, pool, reaching, roster
from agents.talk_views import talk_of
from pipeline import logevents
from pipeline.exceptions import NotAllowed, Refused
from pipeline.live.topics import newest
from pipeline.models import Project, Story
from pipeline.roles import may
from pipeline.views import actor, posted, refused, rights, story_for

SHOWN = 500


@require_POST
def story_start(request: HttpRequest, name: str, number: int) -> HttpResponse:
    story = story_for(request, name, number)
    back = (
        reverse("board", args=[name])
        if request.POST.get("next") == "board"
        else reverse("story", args=[name, number])
    )
    try:
        started = pool.start_story(story, actor=actor(request), agent_name=posted(request, "agent") or None)
    except Refused as error:
        return refused(request, error, back)
    told(request, story, started)
    return redirect(back)


def told(request: HttpRequest, story: Story, started: pool.Started) -> None:
    """What a start did that the page does not show by itself."""
    if started.session is None:
        messages.info(request, f"Story {story.label} waits: {started.queued}.")
    elif not pool.server_is_running():
        messages.warning(
            request,
            f"Story {story.label} is claimed, but no supervisor runs; it begins with the next ./huskies up.",
        )


@require_POST
def story_assign(request: HttpRequest, name: str, number: int) -> HttpResponse:
    """Hand the story to the coder `agent`, now and for every later start."""
    story = story_for(request, name, number)
    back = reverse("story", args=[name, number])
    try:
        started = roster.assign(story, posted(request, "agent"), actor=actor(request))
    except Refused as error:
        return refused(request, error, back)
    told(request, story, started)
    return redirect(back)


@require_POST
def story_stop(request: HttpRequest, name: str, number: int) -> HttpResponse:
    story = story_for(request, name, number)
    back = reverse("story", args=[name, number])
    try:
        pool.stop_story(story, actor=actor(request), why=posted(request, "why"))
    except Refused as error:
        return refused(request, error, back)
    return redirect(back)


@require_GET
def session(request: HttpRequest, pk: int) -> HttpResponse:
    """A session with its log; `?from=N` begins at an event, else its last ones are shown."""
    row = get_object_or_404(
        Session.objects.select_related("story__project", "agent", "process", "credential"), pk=pk
    )
    if not may(request.user, "see", row.project):
        raise Http404
    return render(
        request,
        "agents/session.html",
        {**rights(request, row.project), **log_of(row, request.GET.get("from")), **talk_of(request, row)},
    )


def log_of(row: Session, begin: str | None) -> dict[str, object]:
    """What the session partial needs; used by our page and by the admin's."""
    last = row.process.last_seq if row.process else 0
    given = int(begin) if begin and begin.isdecimal() and len(begin) < 18 else last - SHOWN + 1
    first = max(1, given)
    shown = list(islice(logevents.since(row.process.pk, first), SHOWN)) if row.process else []
    runtime = RUNTIMES.get(row.runtime)
    return {
        "session": row,
        "story": row.story,
        "events": shown,
        "earlier": max(1, first - SHOWN) if first > 1 else 0,
        "log_cursor": shown[-1].seq if shown else last,
        # An old part of a log stands still: the newest lines would not follow on its last one.
        "log_live": not shown or shown[-1].seq >= last,
        "later": shown[-1].seq + 1 if shown and shown[-1].seq < last else 0,
        "label": runtime.label if runtime else row.runtime,
        "confinement": reaching.confinement_note(row),
        "key_note": reaching.key_note(row),
        "key_readable": reaching.key_is_readable(row),
        "cursor": newest(f"project:{row.project_id}"),
        "ledger": row.ledger.order_by("seq")[:200],
        "counted_as": prices.counted_as(),
    }


@require_http_methods(["GET", "POST"])
def credential_list(request: HttpRequest) -> HttpResponse:
    """Keys: names and where they may be sent; a value is never shown again."""
    if not may(request.user, "credential.edit", None):
        return refused(
            request,
            NotAllowed("Only an admin of the whole server sees and adds credentials."),
            reverse("home"),
        )
    form = CredentialForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            credentials.add_credential(
                values["name"],
                kind=values["kind"],
                value=values["value"],
                base_urls=values["base_urls"].split(),
                actor=actor(request),
                replace=values["replace"],
            )
        except Refused as error:
            return refused(request, error, reverse("credentials"))
        messages.success(request, f"Credential {values['name']} is stored, encrypted.")
        return redirect("credentials")
    rows = Credential.objects.order_by("name")
    return render(
        request,
        "agents/credentials.html",
        {"form": form, "credentials": rows},
        status=400 if form.errors else 200,
    )


@require_POST
def pause_lift(request: HttpRequest) -> HttpResponse:
    """A person has seen to a paused key (`credential`, its name) or program (`runtime`, the pause's id): starts with it go on."""
    back = reverse("credentials")
    if not may(request.user, "credential.edit", None):
        return refused(request, NotAllowed("Only an admin of the whole server ends this pause."), back)
    try:
        if pk := posted(request, "runtime"):
            pause = get_object_or_404(RuntimeCheck, pk=pk if pk.isdecimal() and len(pk) < 18 else 0)
            breaker.lift_runtime(pause, actor=actor(request))
        else:
            row = get_object_or_404(Credential, name=posted(request, "credential"))
            breaker.lift_credential(row, actor=actor(request))
    except Refused as error:
        return refused(request, error, back)
    return redirect(back)


@require_GET
def next_steps(request: HttpRequest) -> HttpResponse:
    """How to go on with a real agent: which programs this machine has, logged in or not, what to do."""
    found = [(runtime, runtime.find()) for runtime in RUNTIMES.values()]
    return render(
        request,
        "agents/next_steps.html",
        {"found": found, "projects": Project.objects.visible_to(request.user)},
    )
