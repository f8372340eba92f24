"""Landing: the project's own branch moves from the tip that was gated to the candidate, and only then is the story done.

The project's branch is the truth. A story is done if and only if its change is reachable from it; after a crash it is healed in that
direction (rules.md, crash windows 22-25). Each function is idempotent, and the caller holds the project's row.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from pipeline import conf, events, merging, moves
from pipeline.actors import SERVER
from pipeline.git.command import GitError
from pipeline.git.reading import is_ancestor, resolve
from pipeline.models import Merge, Project, Story
from pipeline.models.merge import OVER, MergeState
from pipeline.processes.crashpoint import crashpoint
from pipeline.services import processes, projects
from pipeline.stages import Stage

logger = logging.getLogger("huskies.merges")


def start(merge: Merge, kind: str, state: MergeState, **values: Any) -> None:
    """The next process of a merge, and the state that says so."""
    process = processes.prepare(
        kind, project=merge.project, story=merge.story, fence=merge.fence, request={"merge": merge.pk}
    )
    set_state(merge, state, process=process, **values)


def set_state(merge: Merge, state: MergeState, **values: Any) -> None:
    Merge.objects.filter(pk=merge.pk).exclude(state__in=OVER).update(state=state, **values)
    merge.refresh_from_db()


def end(merge: Merge, state: MergeState, reason: str) -> None:
    """This attempt is over; the story is not touched."""
    set_state(merge, state, reason=reason, ended_at=timezone.now(), next_try=None)


def wait(merge: Merge, reason: str, *, files: tuple[str, ...] = ()) -> None:
    """Something outside stands in the way: the reason is on the story, and the same is tried again. Never blocks, never fails."""
    told = merge.state == MergeState.WAITING and merge.reason == reason
    seconds = merging.wait_seconds(merge.tries)
    set_state(
        merge,
        MergeState.WAITING,
        reason=reason,
        files=list(files),
        tries=F("tries") + 1,
        next_try=timezone.now() + timedelta(seconds=seconds),
    )
    changed = Story.objects.filter(pk=merge.story_id, stage=Stage.MERGE).exclude(waiting_for=reason)
    if changed.update(waiting_for=reason) or not told:
        events.record(merge.project_id, "merge", story=merge.story, text=reason)


def fail(merge: Merge, reason: str, files: tuple[str, ...] = ()) -> None:
    """The work cannot land as it is: the story goes to merge failure with the reason."""
    end(merge, MergeState.FAILED, reason)
    Merge.objects.filter(pk=merge.pk).update(files=list(files))
    story = locked(merge.story_id)
    if story.stage == Stage.MERGE and story.fence == merge.fence:
        moves.move(story, "merge_failed", actor=SERVER, why=reason, fence=merge.fence, reason=reason)
    events.record(merge.project_id, "merge", story=story, text=reason)


def begin(merge: Merge) -> None:
    """The gate is green (or there is none): write down the intent, then push."""
    story = locked(merge.story_id)
    if story.stage != Stage.MERGE:
        end(merge, MergeState.REPLACED, f"The story is in {story.get_stage_display().lower()} now.")
    elif story.frozen or story.held_for:
        end(merge, MergeState.REPLACED, story.held_for or "The story is frozen; it is merged anew later.")
    else:
        start(merge, "land", MergeState.LANDING, next_try=None)
        transaction.on_commit(lambda: crashpoint("merge-gate-green"))


def land_answered(merge: Merge, answer: Mapping[str, Any]) -> None:
    """What the push came to."""
    if merge.state == MergeState.LANDING:
        _follow(merge, merging.after_land(answer), answer)


def probe_answered(merge: Merge, answer: Mapping[str, Any]) -> None:
    """Whether it landed after all."""
    if merge.state == MergeState.PROBING:
        _follow(merge, merging.after_probe(answer, expected=merge.expected), answer)


def _follow(merge: Merge, next_: merging.Next, answer: Mapping[str, Any]) -> None:
    if next_.step == "landed":
        crashpoint("merge-landed-unrecorded")
        landed(merge, str(answer["result"]["tip"]))
    elif next_.step == "again":
        end(merge, MergeState.REPLACED, next_.reason)
        events.record(merge.project_id, "merge", story=merge.story, text=next_.reason)
    elif next_.step == "land":
        start(merge, "land", MergeState.LANDING, next_try=None)
    elif next_.step == "probe":
        later = None
        if merge.state == MergeState.PROBING:  # the look itself did not get through: not in a tight loop
            later = timezone.now() + timedelta(seconds=merging.RETRY_SECONDS)
        set_state(
            merge, MergeState.PROBING, process=None, reason=next_.reason, next_try=later, tries=F("tries") + 1
        )
    else:
        wait(merge, next_.reason, files=next_.files)


def landed(merge: Merge, tip: str) -> None:
    """It is on the project's branch: the control repository's base follows, then the story is done."""
    project = merge.project
    projects.follow_base(project, project.base_branch, tip)
    Project.objects.filter(pk=project.pk).update(tip=tip, reason="")
    project.refresh_from_db()
    # Whatever state the attempt is in: one that was written off may have landed all the same.
    Merge.objects.filter(pk=merge.pk).update(
        state=MergeState.LANDED, reason="", ended_at=timezone.now(), next_try=None
    )
    merge.refresh_from_db()
    story = locked(merge.story_id)
    text = f"#{story.number} landed as {merge.candidate[:12]}"
    if story.stage in (Stage.MERGE, Stage.MERGE_FAILURE):
        why = f"{merge.candidate[:12]} is on {project.base_branch}"
        moves.move(
            story, "land", actor=SERVER, why=why, landed=merge.candidate, waiting_for="", needs_approval=""
        )
    else:
        # A person moved it while the push was under way and could not be called back.
        moves.note(
            story, "land", actor=SERVER, why=f"{text} on {project.base_branch}, while it was elsewhere"
        )
    projects.read_file_at(project, tip)
    logger.info("Story %s: %s", story.label, text, extra={"action": "landed", "story_id": story.pk})
    events.record(project.pk, "merge", story=story, text=text)
    transaction.on_commit(lambda: crashpoint("outcome-recorded"))


def heal(project: Project, tip: str) -> int:
    """Stories whose candidate is on the branch although nobody recorded it are done. Returns how many were healed."""
    control = conf.control_path(project.key)
    waiting = Merge.objects.filter(project=project, story__stage__in=[Stage.MERGE, Stage.MERGE_FAILURE])
    healed = 0
    for merge in waiting.exclude(candidate="").exclude(state=MergeState.LANDED).select_related("project"):
        try:
            there = resolve(control, merge.candidate) and is_ancestor(control, merge.candidate, tip)
        except GitError:
            logger.exception("Merge %s could not be compared with the branch.", merge.pk)
            continue
        if (
            there
            and Story.objects.filter(pk=merge.story_id, stage__in=[Stage.MERGE, Stage.MERGE_FAILURE]).exists()
        ):
            landed(merge, tip)
            healed += 1
    return healed


def locked(story_id: int) -> Story:
    return (
        Story.objects.select_for_update(of=("self",), no_key=True).select_related("project").get(pk=story_id)
    )
