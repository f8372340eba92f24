"""Recent events: what happened in the project since an agent last worked on a story, put before its next first turn.

Drained exactly once: a claim notes the number of the project's newest event, and a session is told what lies between the number of the last
session that began and its own. Nothing is stored besides, so a refused start drains nothing, a session that ended before its agent began
has told nothing, and a prompt that is made twice says the same.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from django.db.models import Q

from agents.models import Session
from agents.runtimes.prompts import fenced
from agents.services.conversations import spoke
from pipeline.models import Event, EventCounter
from pipeline.prepared import Select

MOST_LINES = 40
MOST_CHARACTERS = 4000
LINE_CHARACTERS = 240
HEAD = "Recent events in the project since your last session (a report: it asks nothing of you)"
# What a terminal or a reader could take for something else than text.
INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
TOLD = ("story", "merge", "deleted")
"""Kinds of event: moves, landings, blocks, failures, acts of people; not what sessions and gates say."""


NEWEST: Select[tuple[int]] = Select(
    lambda project: EventCounter.objects.filter(pk=project).values_list("number"), int
)

EARLIER: Select[tuple[int, dict[str, Any] | None, datetime]] = Select(
    lambda story, agent, before: (
        Session.objects.filter(story=story, agent=agent, pk__lt=before, started_at__isnull=False)
        .order_by("-id")
        .values_list("news_upto", "told", "started_at")[:50]
    ),
    int,
    int,
    int,
)


def upto(project_id: int) -> int:
    """The number of the project's newest event that is committed; what comes later is told to the next session."""
    row = NEWEST.first(project_id)
    return row[0] if row else 0


def block(session: Session) -> str:
    """The tagged block for a session's prompt, at most MOST_LINES and MOST_CHARACTERS; "" when there is nothing to tell, as in a first session."""
    earlier = last_told(session)
    if earlier is None:
        return ""
    own = Q(story=session.story_id)
    rows = (
        Event.objects.filter(
            project=session.project_id, number__gt=earlier, number__lte=session.news_upto, kind__in=TOLD
        )
        .exclude(text="")
        .exclude(own & ~Q(kind="story"))
        .exclude(own & Q(text__contains=" started #"))  # that is how this session came about
        .exclude(kind="merge", text__endswith=" is being merged")
        .order_by("-number")
    )
    found = [line(*row) for row in rows.values_list("at", "story__number", "text")[:MOST_LINES]]
    if not found:
        return ""
    kept = within(found)
    if len(kept) > MOST_LINES - 1 or len(kept) < len(found):
        left_out = rows.count() - len(kept)
        if left_out and len(kept) == MOST_LINES:
            kept, left_out = kept[:-1], left_out + 1
        if left_out:
            kept.append(f"[{left_out} earlier ones were left out]")
    return fenced("\n".join(reversed(kept)), name=HEAD)


def last_told(session: Session) -> int | None:
    """Up to which event this agent knows: that of its last session on this story whose agent began; None before the first."""
    for number, told, began in EARLIER(session.story_id, session.agent_id, session.pk):
        if spoke(told or {}, began):
            return int(number)
    return None


def line(at: object, number: int | None, text: str) -> str:
    """One event as a line of data: one line, visible characters, bounded."""
    said = " ".join(INVISIBLE.sub("", text).split())
    if number is not None and not re.search(rf"#{number}\b", said):
        said = f"#{number}: {said}"
    if len(said) > LINE_CHARACTERS:
        said = said[: LINE_CHARACTERS - 1] + "…"
    return f"- {at:%Y-%m-%d %H:%M} UTC {said}"


def within(lines: list[str]) -> list[str]:
    """The first lines that fit, with room for the head, the fences and the mark of what was left out."""
    room = MOST_CHARACTERS - len(HEAD) - 120
    kept = []
    for each in lines:
        room -= len(each) + 1
        if room < 0:
            break
        kept.append(each)
    return kept
