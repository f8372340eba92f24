"""What people do on a session's page: answer its requests, speak to its agent, interrupt it, take over."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from agents import takeover
from agents.models import PermissionRequest, Session
from agents.models.permission import Asking
from agents.runtimes import RUNTIMES
from agents.services import permissions, talking, telling
from agents.states import State
from pipeline.exceptions import BadInput, Refused
from pipeline.roles import may
from pipeline.views import actor, posted, refused

SHOWN = 50


def talk_of(request: HttpRequest, row: Session) -> dict[str, Any]:
    """What the session partial needs for it; used by our page and by the admin's."""
    asked = row.requests.order_by("-id")
    runtime = RUNTIMES.get(row.runtime)
    live = row.state != State.ENDED
    return {
        "waiting_requests": list(asked.filter(state=Asking.WAITING).order_by("id")),
        "answered_requests": list(asked.exclude(state=Asking.WAITING)[:SHOWN]),
        "said": row.messages.order_by("-id")[:SHOWN],
        "may_answer": permissions.may_answer(request.user, row),
        "may_talk": may(request.user, talking.MAY, row.project),
        "hears": not live or (runtime is not None and runtime.message("") is not None),
        "live": live,
        "take_over": takeover.of(row),
    }


def session_for(request: HttpRequest, pk: int) -> Session:
    row = get_object_or_404(Session.objects.select_related("story__project", "project", "agent"), pk=pk)
    if not may(request.user, "see", row.project):
        raise Http404
    return row


@require_POST
def session_answer(request: HttpRequest, pk: int, row: int) -> HttpResponse:
    """`decide`: allow, session or deny; `reason` is told to the agent when it is denied."""
    session = session_for(request, pk)
    asked = get_object_or_404(PermissionRequest, pk=row, session=session)
    asked.session = session
    back = _back(request, session)
    decide = posted(request, "decide")
    try:
        if decide not in ("allow", "session", "deny"):
            raise BadInput(f"An answer is allow, session or deny, and not {decide!r}.")
        permissions.answer(
            asked,
            allow=decide != "deny",
            for_session=decide == "session",
            reason=posted(request, "reason"),
            actor=actor(request),
        )
    except Refused as error:
        return refused(request, error, back)
    telling.tell(session.pk)
    return redirect(back)


@require_POST
def session_message(request: HttpRequest, pk: int) -> HttpResponse:
    session = session_for(request, pk)
    back = _back(request, session)
    try:
        row, queued = talking.message(session, posted(request, "text"), actor=actor(request))
    except Refused as error:
        return refused(request, error, back)
    if queued:
        messages.info(request, f"{session.agent.name} goes on with it once it can: {queued}.")
    elif session.state == State.ENDED:
        messages.success(request, f"{session.agent.name} goes on with it in a new session.")
        newest = session.story.sessions.filter(agent=session.agent).order_by("-id").first()
        return redirect("session", newest.pk if newest else row.session_id)
    return redirect(back)


@require_POST
def session_interrupt(request: HttpRequest, pk: int) -> HttpResponse:
    session = session_for(request, pk)
    back = _back(request, session)
    try:
        how = talking.interrupt(session, text=posted(request, "text"), actor=actor(request))
    except Refused as error:
        return refused(request, error, back)
    messages.info(request, f"{session.agent.name} is interrupted: {how}.")
    return redirect(back)


def _back(request: HttpRequest, session: Session) -> str:
    if request.POST.get("next") == "board":
        return reverse("board", args=[session.project.name])
    return reverse("session", args=[session.pk])
