"""The merge queue of a project: one live merge at a time, lowest number first.

A merge is a row that is driven by short steps, each a process under a runner: squash (`candidate`), the gate on the merged tree, the push
(`land`), and after a lost answer a look (`probe`). `advance` finds what the row wants next; it is called after every change and by a
sweep, and calling it twice changes nothing. Lock order: process, project, story, event counter. The project's lock is one that lets rows
be inserted that refer to it (FOR NO KEY UPDATE): else it would wait for whoever writes an event, and they for us.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import F
from django.utils import timezone

from pipeline import conf, events, merging, signals, taskqueue
from pipeline.actors import Actor
from pipeline.exceptions import NothingRunning, TransitionRefused
from pipeline.git.reading import is_ancestor
from pipeline.models import GateRun, Merge, Project, Story
from pipeline.models.gate import GateState, Verdict
from pipeline.models.merge import OVER, MergeState
from pipeline.models.process import ProcessState
from pipeline.models.project import ProjectState
from pipeline.processes.crashpoint import crashpoint
from pipeline.services import gates, landing, projects
from pipeline.services.stories import check_may
from pipeline.stages import Stage

logger = logging.getLogger("huskies.merges")


def live_merge(project: Project) -> Merge | None:
    """The one merge of a project that is not over."""
    rows = Merge.objects.filter(project=project).exclude(state__in=OVER)
    return rows.select_related("story", "project", "process", "gate_run").first()


def advance(project_id: int) -> None:
    """Do what the queue of a project wants next: go on with the live merge, or begin one. Idempotent."""
    with transaction.atomic():
        project = Project.objects.select_for_update(no_key=True).get(pk=project_id)
        merge = live_merge(project)
        if merge is not None:
            _go_on(merge)
    # A transaction for each story: the event counter is taken last, and stories are locked before it.
    with transaction.atomic():
        project = Project.objects.select_for_update(no_key=True).get(pk=project_id)
        if live_merge(project) is None and project.state == ProjectState.READY:
            _begin_next(project)


def advance_all() -> None:
    """The sweep: every project with a live merge or a story in the queue."""
    live = Merge.objects.exclude(state__in=OVER).values_list("project_id", flat=True)
    queued = Story.objects.filter(stage=Stage.MERGE, needs_approval="").unhindered()
    for project_id in sorted({*live, *queued.values_list("project_id", flat=True)}):
        try:
            advance(project_id)
        except DatabaseError:
            raise
        except Exception:
            # One project's damaged repository must not hold up the others.
            logger.exception(
                "The merge queue of project %s could not go on.", project_id, extra={"action": "merges_stuck"}
            )


def retry_now(project: Project, *, actor: Actor) -> None:
    """A person removed what stood in the way: do not wait for the next try. Raises NotAllowed, NothingRunning."""
    check_may(actor, "story.retry_merge", project)
    with transaction.atomic():
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        rows = Merge.objects.filter(project=project, state__in=[MergeState.WAITING, MergeState.PROBING])
        if not rows.update(next_try=timezone.now()):
            raise NothingRunning(f"No merge of project {project.name} waits to be tried again.")
    advance(project.pk)


def _begin_next(project: Project) -> None:
    stories = Story.objects.filter(project=project, stage=Stage.MERGE, needs_approval="").unhindered()
    taken = {pk for find in merging.busy for pk in find(project.pk)}
    first = stories.exclude(pk__in=taken).order_by("number").first()
    if first is None:
        return
    story = landing.locked(first.pk)
    Story.objects.filter(pk=story.pk).update(fence=F("fence") + 1, waiting_for="")
    merge = Merge.objects.create(
        story=story, project=project, key=conf.new_key(), fence=story.fence + 1, tip=story.tip
    )
    if story.tip:
        landing.start(merge, "candidate", MergeState.PREPARING)
        events.record(project.pk, "merge", story=story, text=f"#{story.number} is being merged")
    else:
        landing.fail(merge, "Nothing to land: there is no work of this story yet. Send it back to the coder.")


def _go_on(merge: Merge) -> None:
    """What a live merge wants: a process that is missing, an answer nobody took, or a try that is due."""
    busy = merge.process is not None and merge.process.state != ProcessState.HANDLED
    due = merge.next_try is None or merge.next_try <= timezone.now()
    if merge.state == MergeState.GATING:
        if merge.gate_run is None:
            landing.end(merge, MergeState.REPLACED, "Its gate run is gone; it is merged anew.")
        elif merge.gate_run.state == GateState.OVER:
            after_gate(merge.gate_run)
    elif busy or not due:
        return
    elif merge.state == MergeState.PREPARING or (merge.state == MergeState.WAITING and not merge.candidate):
        landing.start(merge, "candidate", MergeState.PREPARING, next_try=None)
    elif merge.state == MergeState.WAITING:
        landing.begin(merge)
    elif merge.state in (MergeState.LANDING, MergeState.PROBING):
        landing.start(merge, "probe", MergeState.PROBING, next_try=None)


def candidate_made(merge: Merge, answer: Mapping[str, Any]) -> None:
    """The squash is made, or cannot be; the caller holds the project's row."""
    if merge.state != MergeState.PREPARING:
        return
    next_ = merging.after_candidate(answer)
    if next_.step == "wait":
        landing.wait(merge, next_.reason)
        return
    if next_.step == "fail":
        if not _landed_before(merge, answer):
            landing.fail(merge, next_.reason, next_.files)
            projects.refresh(merge.project)  # whoever mends a conflict needs the base branch as it is now
        return
    made = answer["result"]
    landing.set_state(
        merge,
        MergeState.GATING,
        expected=made["base"],
        candidate=made["candidate"],
        tree=made["tree"],
        reason="",
        files=[],
    )
    transaction.on_commit(lambda: crashpoint("merge-candidate-recorded"))
    story = landing.locked(merge.story_id)
    if story.stage != Stage.MERGE or story.fence != merge.fence:
        landing.end(merge, MergeState.REPLACED, "The story has moved on meanwhile.")
        return
    # Asked of exactly what would land: a merge may bring together what neither side changed alone.
    needs = gates.files_to_approve(story, merge.candidate, base=merge.expected, base_is_tip=True)
    if needs:
        landing.end(merge, MergeState.REPLACED, needs)
        Story.objects.filter(pk=story.pk).update(needs_approval=needs, waiting_for=needs)
        events.record(merge.project_id, "merge", story=story, text=needs)
        return
    run = gates.open_run(story, purpose="merge", commit=merge.candidate, tree=merge.tree)
    landing.set_state(merge, MergeState.GATING, gate_run=run, fence=run.fence)
    if run.state == GateState.OVER:
        after_gate(run)


def _landed_before(merge: Merge, answer: Mapping[str, Any]) -> bool:
    """ "Nothing to land" may mean that an earlier attempt did land and its answer was lost."""
    refused = answer.get("refused", {})
    if refused.get("kind") != "empty" or not refused.get("base"):
        return False
    control = conf.control_path(merge.project.key)
    for earlier in Merge.objects.filter(story=merge.story).exclude(candidate="").select_related("project"):
        if is_ancestor(control, earlier.candidate, refused["base"]):
            landing.set_state(
                merge, MergeState.LANDING, candidate=earlier.candidate, expected=earlier.expected
            )
            landing.landed(merge, refused["base"])
            return True
    return False


def after_gate(run: GateRun) -> None:
    """The verdict on the merged tree: push, or merge failure. Idempotent, inside a transaction."""
    Project.objects.select_for_update(no_key=True).get(pk=run.story.project_id)
    merge = (
        Merge.objects.filter(gate_run=run, state=MergeState.GATING)
        .select_related("story", "project", "process", "gate_run")
        .first()
    )
    if merge is None:
        return
    if gates.was_cancelled(run):
        landing.end(merge, MergeState.REPLACED, run.reason)
    elif run.verdict in (Verdict.PASSED, Verdict.SKIPPED):
        landing.begin(merge)
    elif run.verdict == Verdict.ERRORED:
        landing.fail(merge, f"The gate could not be run on the merged work: {run.reason}")
    else:
        shown = f"\n\n{run.output[-2000:]}" if run.output else ""
        landing.fail(merge, f"The gate did not pass on the merged work: {run.reason}{shown}")


def stop_for_person(story: Story, by: str) -> None:
    """A person takes the story away: its merge ends. While the push is under way nobody can call it back, so the move is refused."""
    merge = Merge.objects.filter(story=story).exclude(state__in=OVER).first()
    if merge is None:
        return
    if merge.state in (MergeState.LANDING, MergeState.PROBING):
        raise TransitionRefused(
            f"Story {story.label} is being pushed to {story.project.base_branch} at this moment, which cannot be called "
            "back. Look again in a few seconds."
        )
    landing.end(merge, MergeState.REPLACED, f"Stopped by {by}.")


def stop_work(sender: Any, *, story: Story, actor: Actor, **_: Any) -> None:
    """Receiver: a person's move ends what the server does on the story."""
    stop_for_person(story, actor.name)
    gates.stop_for_person(story, actor.name)


def look_for_merges(sender: Any, *, story: Story, from_stage: str, **_: Any) -> None:
    """Receiver: a story that came into the queue, or left it, is the queue's next step."""
    if Stage.MERGE in (story.stage, from_stage):
        taskqueue.enqueue("pipeline.tasks.advance_merges", story.project_id)


def connect() -> None:
    signals.work_must_stop.connect(stop_work, dispatch_uid="pipeline.stop")
    signals.stage_changed.connect(look_for_merges, dispatch_uid="pipeline.merges")
