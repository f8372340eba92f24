"""Topics: what can be listened to, and how their news after a cursor becomes a frame. Frames are the same for all who may see the topic.

`project:<id>`: cards and project news, numbered by the project's events. `process:<key>`: a child's log, numbered by its own events.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Any

from django.template.loader import render_to_string

from pipeline import logevents
from pipeline.models import Event, EventCounter, Process, Project, Story

TOPICS_AT_MOST = 20
"""To which one socket may listen."""
AT_MOST = 500
"""News in one frame; a reader that is further behind looks at the page again."""

card_context: list[Callable[[list[Story]], dict[int, dict[str, Any]]]] = []
"""What the apps above add to cards: story id -> values for the template."""


def parse(topic: str) -> tuple[str, str] | None:
    found = re.fullmatch(r"(project):(\d{1,18})|(process):([0-9a-f]{20})", topic)
    if not found:
        return None
    return (found[1], found[2]) if found[1] else (found[3], found[4])


def project_of(topic: str) -> Project | None:
    """Whose rights decide on the topic; None = there is no such topic."""
    parsed = parse(topic)
    if parsed is None:
        return None
    if parsed[0] == "project":
        return Project.objects.filter(pk=int(parsed[1])).first()
    process = Process.objects.select_related("project").filter(key=parsed[1]).first()
    return process.project if process else None


def newest(topic: str) -> int:
    """The number of the topic's newest event."""
    kind, name = parse(topic) or ("", "")
    if kind == "project":
        return EventCounter.objects.filter(pk=int(name)).values_list("number", flat=True).first() or 0
    return Process.objects.filter(key=name).values_list("last_seq", flat=True).first() or 0


def frame_after(topic: str, cursor: int) -> dict[str, Any] | None:
    """What happened after the cursor as one frame, "resync" when that is too much, None when nothing did."""
    kind, name = parse(topic) or ("", "")
    return _of_project(topic, int(name), cursor) if kind == "project" else _of_process(topic, name, cursor)


def _of_project(topic: str, pk: int, cursor: int) -> dict[str, Any] | None:
    rows = list(Event.objects.filter(project_id=pk, number__gt=cursor).order_by("number")[: AT_MOST + 1])
    if not rows:
        return None
    upto = rows[-1].number
    if len(rows) > AT_MOST:
        return {"topic": topic, "upto": newest(topic), "resync": True}
    stories = list(
        Story.objects.filter(pk__in={row.story_id for row in rows if row.story_id})
        .select_related("project")
        .annotate_criteria()
    )
    frame: dict[str, Any] = {"topic": topic, "from": cursor, "upto": upto, "cards": cards(stories)}
    frame["news"] = sorted({row.kind for row in rows})
    if any(row.kind == "access" for row in rows):
        frame["access"] = True
    return frame


def cards(stories: list[Story]) -> list[dict[str, Any]]:
    """Each story as {"story", "number", "stage", "html"}: the partial that drew the board."""
    more = context_of(stories)
    return [
        {
            "story": story.pk,
            "number": story.number,
            "stage": story.stage,
            "html": render_to_string("pipeline/card.html", {"story": story, **more.get(story.pk, {})}),
        }
        for story in stories
    ]


def context_of(stories: list[Story]) -> dict[int, dict[str, Any]]:
    """The values that cards show besides the story's own, in a constant number of queries."""
    found: dict[int, dict[str, Any]] = {story.pk: {} for story in stories}
    for add in card_context:
        for pk, values in add(stories).items():
            found.setdefault(pk, {}).update(values)
    return found


def _of_process(topic: str, key: str, cursor: int) -> dict[str, Any] | None:
    process = Process.objects.filter(key=key).values_list("pk", flat=True).first()
    rows = list(islice(logevents.since(process, cursor + 1), AT_MOST + 1)) if process else []
    if not rows:
        return None
    if len(rows) > AT_MOST:
        return {"topic": topic, "upto": newest(topic), "resync": True}
    lines = [
        {"seq": row.seq, "html": render_to_string("pipeline/log_event.html", {"event": row})} for row in rows
    ]
    return {"topic": topic, "from": cursor, "upto": rows[-1].seq, "lines": lines}
