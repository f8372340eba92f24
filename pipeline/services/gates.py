"""The verbs of a gate run: ask for one, cancel it, draw the consequences of its verdict.

The gate is what the project file that holds says; it runs on a clean copy of a committed tree. A verdict belongs to (tree, gate hash): the
same tree is not judged twice by the same gate.
"""

from __future__ import annotations

import logging

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from pipeline import conf, events, moves, signals
from pipeline.actors import SERVER
from pipeline.exceptions import AlreadyWorked, TransitionRefused
from pipeline.git.reading import merge_base, paths_changed, tree_of
from pipeline.models import GateRun, Process, Project, Story
from pipeline.models.gate import GateState, Verdict
from pipeline.models.process import ProcessState
from pipeline.models.story import Kind, lock_story
from pipeline.prepared import Select
from pipeline.processes import confine
from pipeline.projectfile import ProjectFile, gate_hash, guarded, touched
from pipeline.projectfile.schema import command_label
from pipeline.services import processes, projectfiles
from pipeline.stages import Stage

logger = logging.getLogger("huskies.gates")

TRIES = 3
NO_GATE = "No gate is configured, so a person looks at the work."
NETWORK_UNKEPT = "The gate's `network` can only be kept within bubblewrap."


def live_run(story: Story) -> GateRun | None:
    """The gate run of a story that is not over."""
    return LIVE.first(story.pk)


LIVE: Select[GateRun] = Select(
    lambda story: GateRun.objects.filter(story=story).exclude(state=GateState.OVER).order_by("pk")[:1], int
)


LAST_OF_WORK: Select[GateRun] = Select(
    lambda story: GateRun.objects.filter(story=story, purpose="coding").order_by("-id")[:1], int
)


def owed(story: Story) -> bool:
    """Whether the work in hand still wants its verdict: its gate was cancelled, could not be run, or passed while nothing could move."""
    if story.stage != Stage.CODING or not story.tip or story.next_prompt:
        return False
    run = LAST_OF_WORK.first(story.pk)
    if run is None or run.commit != story.tip or run.state != GateState.OVER:
        return False
    if run.verdict == Verdict.PASSED:
        return bool(run.ended_at and story.stage_at <= run.ended_at)
    if run.verdict == Verdict.FAILED:
        return run.fence == story.fence  # nobody was told: the story was frozen when the verdict came
    return run.verdict == Verdict.ERRORED or was_cancelled(run)


def was_cancelled(run: GateRun) -> bool:
    """A run that was skipped although there was a gate to run."""
    return run.verdict == Verdict.SKIPPED and run.command != ""


def request_gate(story: Story, *, purpose: str, commit: str, tree: str = "") -> GateRun:
    """A gate run on a commit of the control repository, with the story's next fence; a verdict that is known already follows at once.

    Raises AlreadyWorked while another run of the story is not over.
    """
    with transaction.atomic():
        run = open_run(story, purpose=purpose, commit=commit, tree=tree)
        if run.state == GateState.OVER:
            settle(run)
    return run


def open_run(story: Story, *, purpose: str, commit: str, tree: str = "") -> GateRun:
    """The row, and the process if one is needed; its consequences are the caller's (`settle`). Inside a transaction."""
    story = _locked(story.pk)
    running = live_run(story)
    if running is not None:
        if running.commit == commit and running.purpose == purpose:
            return running
        raise AlreadyWorked(f"Story {story.label}: its gate still runs on {running.commit[:8]}.")
    project = story.project
    tree = tree or tree_of(conf.control_path(project.key), commit)
    version = projectfiles.active_version(project)
    file = projectfiles.file_of(version)
    Story.objects.filter(pk=story.pk).update(fence=F("fence") + 1)
    run = GateRun(
        story=story,
        purpose=purpose,
        commit=commit,
        tree=tree,
        gate_hash=version.gate_hash if version else gate_hash(file),
        command=command_label(file.gate.command) if file.gate else "",
        fence=story.fence + 1,
    )
    known = (
        GateRun.objects.filter(tree=tree, gate_hash=run.gate_hash, story__project=project)
        .filter(verdict=Verdict.PASSED)
        .order_by("-id")
        .first()
    )
    level = confine.level_available()
    if file.gate is None:
        _over(run, Verdict.SKIPPED, NO_GATE)
    elif known is not None:
        _over(run, Verdict.PASSED, f"The same tree has passed before (gate run {known.pk}).")
        run.output = known.output
    elif level.name == "none" and not projectfiles.unconfined_allowed(project):
        _over(
            run,
            Verdict.ERRORED,
            f"A gate cannot be confined on this host: {level.reason} Or an admin allows project {project.name} "
            "to run without confinement.",
        )
    elif level.name == "none" and not file.gate.network.is_on:
        _over(run, Verdict.ERRORED, f"{NETWORK_UNKEPT} {level.reason}")
    run.save(force_insert=True)
    if run.state != GateState.OVER:
        launch(run)
    events.record(project.pk, "gate", story=story, text=f"gate run {run.pk} on {commit[:8]}: {_said(run)}")
    return run


def launch(run: GateRun) -> None:
    """A process for a run that has none, or whose last one was lost."""
    process = processes.prepare(
        "gate", project=run.story.project, story=run.story, fence=run.fence, request={"gate_run": run.pk}
    )
    GateRun.objects.filter(pk=run.pk).update(process=process, state=GateState.QUEUED)
    run.process, run.state = process, GateState.QUEUED


def cancel(run: GateRun, *, by: str) -> None:
    """A person took the story out of the server's hands: the run is over when its process is verified dead; its verdict moves nothing."""
    GateRun.objects.filter(pk=run.pk).exclude(state=GateState.OVER).update(reason=f"Stopped by {by}.")
    transaction.on_commit(lambda: carry_out_cancel(run.pk))


def carry_out_cancel(run_id: int) -> None:
    """Ask the runner of a cancelled run to stop; a launch that has not happened never does. Idempotent, called again by the sweep."""
    run = GateRun.objects.select_related("process").filter(pk=run_id).exclude(reason="").first()
    if run is None or run.state == GateState.OVER or run.process is None:
        return
    if run.process.state == ProcessState.PREPARED:
        processes.reclaim(run.process, "it was cancelled before it began")
    elif run.process.state == ProcessState.RUNNING:
        processes.stop(run.process, grace=2.0, reason=run.reason)


def sweep() -> None:
    """Cancels that were not heard, and runs whose process is over without a verdict (its handler failed)."""
    for run in GateRun.objects.exclude(state=GateState.OVER).select_related("process"):
        if run.reason:
            carry_out_cancel(run.pk)
        elif run.process is None or run.process.state == ProcessState.HANDLED:
            with transaction.atomic():
                fresh = locked(run)
                if fresh.state != GateState.OVER and fresh.process_id == run.process_id:
                    try_again(fresh, "Its process ended without a verdict.")


def locked(run: GateRun) -> GateRun:
    """The run, locked after its story, and a merge's after its project: the order in which everybody locks."""
    if run.purpose == "merge":
        Project.objects.select_for_update(no_key=True).get(pk=run.story.project_id)
    lock_story(run.story_id)
    rows = GateRun.objects.select_related("story__project")
    return rows.select_for_update(of=("self",), no_key=True).get(pk=run.pk)


def try_again(run: GateRun, reason: str) -> None:
    """The machine's fault, not the work's: run it once more, or give up with the reason after three tries."""
    run.tries += 1
    GateRun.objects.filter(pk=run.pk).update(tries=run.tries)
    if run.tries < TRIES:
        logger.warning("Gate run %s is started again: %s", run.pk, reason, extra={"action": "gate_again"})
        launch(run)
    else:
        conclude(run, Verdict.ERRORED, f"It could not be run in {TRIES} tries. {reason}")


def conclude(run: GateRun, verdict: Verdict, reason: str, output: str = "") -> None:
    """The verdict, and what follows from it, in the caller's transaction."""
    run.output = output
    _over(run, verdict, reason)
    run.save(update_fields=["state", "verdict", "reason", "output", "ended_at"])
    settle(run)
    events.record(run.story.project_id, "gate", story=run.story, text=f"gate run {run.pk}: {_said(run)}")


def settle(run: GateRun) -> None:
    """What a verdict means for its story. A run of older work (its fence) keeps its verdict and moves nothing."""
    if run.purpose == "merge":
        from pipeline.services import merges  # it asks for gate runs itself

        merges.after_gate(run)
        return
    story = _locked(run.story_id)
    moves.note(story, "gate", actor=SERVER, why=f"run {run.pk} on {run.commit[:8]}: {_said(run)}")
    if story.fence != run.fence or story.stage != Stage.CODING or story.held_for or story.frozen:
        return
    if run.verdict == Verdict.PASSED or (run.verdict == Verdict.SKIPPED and not was_cancelled(run)):
        accept(story, run=run)
    elif not was_cancelled(run):
        signals.gate_verdict.send(sender=GateRun, run=run)


def accept(story: Story, *, run: GateRun) -> Story:
    """Where green work goes: to the merge queue, or to QA with the sentence that says whom it waits for."""
    file = projectfiles.active_file(story.project)
    no_gate = run.verdict == Verdict.SKIPPED
    mode = "human" if no_gate else qa_mode(story, file)
    needs = files_to_approve(story, run.commit)
    fields = {"needs_approval": needs, "next_prompt": "", "next_kind": ""}
    why = run.reason or f"gate run {run.pk} passed on {run.commit[:8]}"
    try:
        if mode == "server":
            waiting = "An admin's approval of the changed files." if needs else ""
            return moves.move(
                story, "to_merge", actor=SERVER, why=why, fence=run.fence, waiting_for=waiting, **fields
            )
        waiting = {
            "human": "A person to approve or reject it.",
            "agent": "Its QA: a qa agent or a person approves or rejects it.",
        }[mode]
        if no_gate:
            waiting = f"{waiting} {NO_GATE}"
        return moves.move(
            story, "to_qa", actor=SERVER, why=why, fence=run.fence, waiting_for=waiting, **fields
        )
    except TransitionRefused as refused:
        moves.note(story, "gate", actor=SERVER, why=refused.message)
        return story


def qa_mode(story: Story, file: ProjectFile) -> str:
    """Who looks at the story's green work: server (nobody), human or agent. Spikes, and work without a gate, are for a person."""
    return "human" if story.kind == Kind.SPIKE or file.gate is None else story.qa or file.default_qa


def files_to_approve(story: Story, commit: str, *, base: str = "", base_is_tip: bool = False) -> str:
    """Why a story's change waits for an admin before it lands, "" if it does not: it touches what judges it, or what agents obey.

    The change is what `commit` holds and the base does not; with `base_is_tip` exactly the difference of the two commits.
    """
    if story.files_approved == story.tip and story.tip:
        return ""
    project = story.project
    control = conf.control_path(project.key)
    base = base or project.tip
    start = base if base_is_tip else merge_base(control, base, commit) or story.base
    changed = paths_changed(control, start, commit) if start else []
    found = {
        "what judges the work": touched(projectfiles.active_file(project), changed),
        "what programs obey that are started in the repository": guarded(changed),
    }
    said = " and ".join(f"{what} ({_some(paths)})" for what, paths in found.items() if paths)
    return f"It changes {said}: an admin must approve these changes before it lands." if said else ""


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def stop_for_person(story: Story, by: str) -> None:
    """A person takes the story away: its gate run is cancelled."""
    run = live_run(story)
    if run is not None:
        cancel(run, by=by)


def began(process: Process) -> None:
    """The first of the run's output is there."""
    GateRun.objects.filter(process=process, state=GateState.QUEUED).update(
        state=GateState.RUNNING, started_at=timezone.now()
    )


def _locked(story_id: int) -> Story:
    return (
        Story.objects.select_for_update(of=("self",), no_key=True).select_related("project").get(pk=story_id)
    )


def _over(run: GateRun, verdict: Verdict, reason: str) -> None:
    run.state, run.verdict, run.reason, run.ended_at = GateState.OVER, verdict, reason, timezone.now()


def _said(run: GateRun) -> str:
    if run.state != GateState.OVER:
        return run.get_state_display()
    return f"{run.get_verdict_display()}. {run.reason}".strip()
