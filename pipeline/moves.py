"""The one function that walks the arrows. Nothing else assigns a stage.

A move is a compare-and-set: UPDATE where the stage is still the one we saw. One row changed means we won; none means that someone else
was first, and the refusal says where the story stands now. Every move leaves a row, and tells whoever listens inside the same transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from pipeline import signals
from pipeline.actors import Actor
from pipeline.exceptions import StaleFence, TransitionRefused
from pipeline.models import StageChange, Story
from pipeline.prepared import Select, insert, insert_all
from pipeline.stages import Stage
from pipeline.texts import storable
from pipeline.transitions import VERBS, Verb

logger = logging.getLogger("huskies.moves")

COUNTS: dict[str, Any] = {"retries": 0, "crashes": 0, "idle_sessions": 0, "idle_total": 0}
"""What a person's start sets back: everything that is counted towards blocking a story."""

CLEARED_BY_A_PERSON: dict[str, dict[str, Any]] = {
    "unblock": {"reason": "", **COUNTS},
    "retry_merge": {"reason": ""},
    "send_back": {"reason": "", **COUNTS},
    "park": {"reason": "", "needs_approval": ""},
    "archive": {"needs_approval": ""},
    "start": {"not_before": None, **COUNTS},
    "reject": COUNTS,
    "reopen": {"landed": "", "base": "", "tip": "", "files_approved": "", **COUNTS},
    "land": {"reason": ""},
}


def move(
    story: Story,
    verb_name: str,
    *,
    actor: Actor,
    why: str = "",
    to: str | None = None,
    fence: int | None = None,
    **fields: Any,
) -> Story:
    """Walk one arrow; `fields` are set in the same UPDATE. Must run inside a transaction.

    With `fence`, only if the story still carries it (a result of old work changes nothing). A person's move raises the fence.
    Raises TransitionRefused, StaleFence.
    """
    assert transaction.get_connection().in_atomic_block, "a move and its history row are one transaction"  # noqa: S101
    verb, why = VERBS[verb_name], storable(why, "reason")
    seen = story.stage
    if seen not in verb.sources:
        raise TransitionRefused(refusal(story, verb))
    target = to or verb.target or story.blocked_in or Stage.BACKLOG
    values: dict[str, Any] = {
        "waiting_for": "",
        "not_before": None,
        **CLEARED_BY_A_PERSON.get(verb_name, {}),
        **fields,
    }
    values |= {
        "stage": target,
        "stage_at": timezone.now(),
        "blocked_in": seen if target == Stage.BLOCKED else "",
    }
    if actor.user is not None or verb.stops_work:
        values["fence"] = F("fence") + 1
    rows = Story.objects.filter(pk=story.pk, stage=seen)
    if fence is not None:
        rows = rows.filter(fence=fence)
    if rows.update(**values) != 1:
        story.refresh_from_db()
        if fence is not None and story.fence != fence and story.stage == seen:
            late = f"{story.label}: {verb.label.lower()} comes from older work (fence {fence}, now {story.fence}); nothing was changed."
            logger.warning(late, extra={"action": "stale_fence", "story_id": story.pk})
            raise StaleFence(late)
        raise TransitionRefused(refusal(story, verb))
    read_again(story)
    insert(
        StageChange(story=story, verb=verb.name, from_stage=seen, to_stage=target, actor=actor.name, why=why)
    )
    signals.stage_changed.send(sender=Story, story=story, verb=verb, from_stage=seen, actor=actor, why=why)
    return story


ONE: Select[Story] = Select(lambda pk: Story.objects.filter(pk=pk), int)


def read_again(story: Story) -> None:
    """`refresh_from_db` without making its SQL again; its relations are forgotten too. Raises Story.DoesNotExist."""
    fresh = ONE.first(story.pk)
    if fresh is None:
        raise Story.DoesNotExist(f"Story {story.label} is gone.")
    for field in Story._meta.concrete_fields:
        setattr(story, field.attname, getattr(fresh, field.attname))
    story._state.fields_cache.clear()


def note(story: Story, verb: str, *, actor: Actor, why: str = "") -> None:
    """A history row for an act that moves nothing: stop, hold, freeze, a session's end."""
    note_all([(story, why)], verb, actor=actor)


def note_all(acts: Sequence[tuple[Story, str]], verb: str, *, actor: Actor) -> None:
    """The same for several stories, each with its reason."""
    insert_all(
        [
            StageChange(
                story=story,
                verb=verb,
                from_stage=story.stage,
                to_stage=story.stage,
                actor=actor.name,
                why=storable(why, "reason"),
            )
            for story, why in acts
        ]
    )


def refusal(story: Story, verb: Verb) -> str:
    sources = ", ".join(Stage(s).label.lower() for s in verb.sources)
    extra = f" It waits: {story.waiting_for}" if story.waiting_for else ""
    return f"Story {story.label} cannot {verb.label.lower()}: it is in {story.get_stage_display().lower()}, and this goes from {sources}.{extra}"
