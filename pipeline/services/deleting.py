"""Deleting a story for good: its rows, refs, copies, logs, and every commit that has not landed. Its number is never given again.

First it is marked, held, and everything that works on it is asked to stop; a mark is never taken back. Once all of that is verified dead the
refs go, then the rows in one transaction, which leaves the order to delete the folders. Each step can be repeated, and the sweep does so
after a crash. A late result finds no row, and so a deleted story cannot come back. What was spent on it stays in the sums of its day.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import transaction
from django.db.models import F

from pipeline import conf, events, logevents, moves, signals
from pipeline.actors import SERVER, Actor
from pipeline.exceptions import NotFound
from pipeline.git.command import GitError
from pipeline.git.control import delete_refs
from pipeline.git.names import branch_ref, merge_ref, session_ref, snapshot_ref
from pipeline.models import Act, GateRun, Merge, Story
from pipeline.models.gate import GateState
from pipeline.models.merge import OVER
from pipeline.processes.crashpoint import crashpoint
from pipeline.services import dependencies, processes
from pipeline.services.stories import check_may, locked, refuse_deleted

logger = logging.getLogger("huskies.stories")

busy: list[Callable[[int], bool]] = []
"""What the apps above add: whether something of theirs still works on the story of that id."""


def delete_story(story: Story, *, actor: Actor) -> bool:
    """Delete it now, or as soon as nothing of it runs; returns whether it is gone. Raises NotAllowed, Refused when it is being deleted
    already, and TransitionRefused while it is being pushed, which nobody can call back.
    """
    check_may(actor, "story.delete", story.project)
    with transaction.atomic():
        dependencies.lock_project(story.project_id)
        story = locked(story)
        refuse_deleted(story)
        signals.work_must_stop.send(sender=Story, story=story, actor=actor, why="deleted")
        Story.objects.filter(pk=story.pk).update(
            deleting=actor.name,
            held_for=f"being deleted by {actor.name}; it goes once nothing of it runs",
            fence=F("fence") + 1,
            waiting_for="",
            waiting_since=None,
            not_before=None,
        )
        moves.note(story, "delete", actor=actor)
        Act.objects.create(actor=actor.name, verb="delete", subject=f"story {story.label}", why=story.title)
        events.record(story.project_id, "story", story=story)
    crashpoint("delete-asked")
    return try_to_finish(story.pk)


def sweep() -> None:
    """Stories that wait for their last process, or whose delete was cut short."""
    for pk in Story.objects.exclude(deleting="").values_list("pk", flat=True):
        try_to_finish(pk)


def try_to_finish(story_id: int) -> bool:
    """`finish`; what a damaged repository holds up is logged and tried again, and holds up no other story."""
    try:
        return finish(story_id)
    except (GitError, OSError):
        logger.exception("Story %s cannot be deleted yet.", story_id, extra={"action": "delete_stuck"})
        return False


def finish(story_id: int) -> bool:
    """Take away what is left of a story that someone deleted, unless something of it lives. Idempotent; not inside a transaction.

    Returns whether it is gone.
    """
    story = Story.objects.select_related("project").filter(pk=story_id).first()
    if story is None:
        return True
    if not story.deleting or lives(story):
        return False
    control = conf.control_path(story.project.key)
    keys = list(story.processes.order_by("pk").values_list("key", flat=True))
    if control.exists():
        merges = Merge.objects.filter(story=story).values_list("key", flat=True)
        refs = [branch_ref(story.branch), *map(session_ref, keys), *map(snapshot_ref, keys)]
        refs += map(merge_ref, merges)
        delete_refs(control, refs)
    crashpoint("delete-refs-gone")
    logevents.delete_of(story)
    _delete_rows(story, keys)
    crashpoint("delete-committed")
    return True


def lives(story: Story) -> bool:
    """Whether anything works on it. What is over stays over: nothing begins on a story that is marked."""
    return (
        story.processes.unhandled().exists()
        or GateRun.objects.filter(story=story).exclude(state=GateState.OVER).exists()
        or Merge.objects.filter(story=story).exclude(state__in=OVER).exists()
        or any(works(story.pk) for works in busy)
    )


def _delete_rows(story: Story, keys: list[str]) -> None:
    with transaction.atomic():
        dependencies.lock_project(story.project_id)
        try:
            story = locked(story)
        except NotFound:
            return  # the sweep was faster
        project, who, told = story.project, story.deleting, []
        for edge in story.dependents.select_related("story__project"):
            what = f"#{story.number}, on which it depends, was deleted by {who}: remove that dependency, or it never starts"
            moves.note(edge.story, "dependency_deleted", actor=SERVER, why=what)
            told.append((edge.story, f"#{edge.story.number} depends on #{story.number}, which was deleted"))
        signals.story_deleted.send(sender=Story, story=story)
        number, label = story.number, story.label
        story.delete()
        if keys:
            request = {"keys": keys, "private": True, "runs": True}
            processes.prepare("discard", project=project, request=request)
        crashpoint("delete-inside-transaction")
        for dependent, text in told:
            events.record(project.pk, "story", story=dependent, text=text)
        events.record(project.pk, "deleted", text=f"{who} deleted #{number}")
        # News of the project as a whole: boards look at all of it again, and the card is gone.
        events.record(project.pk, "project")
    logger.info("Story %s was deleted by %s.", label, who, extra={"action": "story_deleted"})
