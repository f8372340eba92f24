"""What agents add to a story's card and page: who works or worked on it, in what state, at what cost."""

from __future__ import annotations

from typing import Any

from django.db.models import Sum

from agents.models import PermissionRequest, Session
from agents.models.permission import Asking
from pipeline.models import Dependency, GateRun, Story


def of_stories(stories: list[Story]) -> dict[int, dict[str, Any]]:
    """Story id -> `session` (live, else last), `sessions`, `cost`, `gate` (the last run), `depends` (numbers), `asks` (the session
    that waits for an answer); five queries in all."""
    ids = [story.pk for story in stories]
    found: dict[int, dict[str, Any]] = {
        pk: {"session": None, "sessions": [], "cost": 0, "gate": None, "depends": [], "asks": None}
        for pk in ids
    }
    for session in (
        Session.objects.filter(story__in=ids).select_related("agent").defer("prompt", "entry").order_by("id")
    ):
        values = found[session.story_id]
        values["sessions"].insert(0, session)
        if values["session"] is None or values["session"].state == "ended" or session.state != "ended":
            values["session"] = session
    for pk, cost in (
        Session.objects.filter(story__in=ids).order_by().values_list("story").annotate(Sum("cost_usd"))
    ):
        found[pk]["cost"] = cost
    for run in GateRun.objects.filter(story__in=ids).defer("output").order_by("id"):
        found[run.story_id]["gate"] = run
    asks = PermissionRequest.objects.filter(session__story__in=ids, state=Asking.WAITING)
    for pk, session_id in asks.values_list("session__story_id", "session_id"):
        found[pk]["asks"] = session_id
    for pk, number in Dependency.objects.filter(story__in=ids).values_list("story_id", "number"):
        found[pk]["depends"].append(number)
    return found
