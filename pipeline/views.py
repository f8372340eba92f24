"""Pages of projects and stories: each a few lines around one service call. A refusal is a sentence and a 409."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from pipeline import conf, logevents, needs
from pipeline.actors import Actor
from pipeline.exceptions import NotAllowed, Refused
from pipeline.forms import StoryForm
from pipeline.git.command import GitError
from pipeline.git.reading import diff
from pipeline.live.topics import context_of, newest
from pipeline.models import Criterion, Dependency, GateRun, Story
from pipeline.models.project import Project
from pipeline.roles import Role, may, role_in
from pipeline.services import deleting, projects, stories
from pipeline.stages import Stage
from pipeline.transitions import person_verbs

CARDS = 100
COLUMNS = [stage for stage in Stage if stage != Stage.ARCHIVED]
DIFF_BYTES = 400_000


def actor(request: HttpRequest) -> Actor:
    assert isinstance(request.user, User)  # noqa: S101 - LoginRequiredMiddleware
    return Actor.of(request.user)


def posted(request: HttpRequest, name: str) -> str:
    """A field that no form cleans. PostgreSQL keeps no NUL in a text."""
    return request.POST.get(name, "").replace("\x00", "\ufffd")


def project_for(request: HttpRequest, name: str) -> Project:
    """The project, 404 for who may not know of it."""
    project = get_object_or_404(Project, name=name)
    if not may(request.user, "see", project):
        raise Http404
    return project


def story_for(request: HttpRequest, name: str, number: int) -> Story:
    return get_object_or_404(
        Story.objects.select_related("project", "owner"), project=project_for(request, name), number=number
    )


def refused(request: HttpRequest, error: Refused, back: str) -> HttpResponse:
    """The sentence on a page of its own, with the way back."""
    status = 403 if isinstance(error, NotAllowed) else 409
    return render(request, "refused.html", {"message": error.message, "back": back}, status=status)


def unreadable(project: Project) -> Refused:
    return Refused(
        f"The server's copy of the repository of project {project.name} cannot be read. "
        "Look again from the project's settings; `./huskies doctor` says what is wrong with it."
    )


def rights(request: HttpRequest, project: Project) -> dict[str, Any]:
    role = role_in(request.user, project)
    return {
        "project": project,
        "role": role.label if role else "",
        "rank": role,
        "is_admin": role == Role.ADMIN,
    }


@require_GET
def board(request: HttpRequest, name: str) -> HttpResponse:
    """The columns; `?all=STAGE` shows all cards of one, `?part=columns` only the columns (after a resync), `?part=needs` what needs you."""
    project = project_for(request, name)
    if request.GET.get("part") == "needs":
        role = role_in(request.user, project)
        return render(
            request, "pipeline/needs.html", {"needs": needs.of_project(project, request.user, role)}
        )
    cursor = newest(f"project:{project.pk}")  # before the rows: what comes meanwhile is sent after it
    counts = dict(project.stories.order_by().values_list("stage").annotate(n=Count("pk")))
    whole = request.GET.get("all", "")
    shown: dict[str, list[Story]] = defaultdict(list)
    for stage in COLUMNS:
        rows = project.stories.filter(stage=stage).select_related("project").annotate_criteria()
        order = "-stage_at" if stage == Stage.DONE else "number"
        shown[stage] = list(rows.order_by(order)[: None if whole == stage else CARDS])
    more = context_of([story for rows in shown.values() for story in rows])
    columns = [
        {
            "stage": stage,
            "label": stage.label,
            "count": counts.get(stage, 0),
            "hidden": counts.get(stage, 0) - len(shown[stage]),
            "cards": [{"story": story, **more.get(story.pk, {})} for story in shown[stage]],
        }
        for stage in COLUMNS
    ]
    mine = rights(request, project)
    context = {
        **mine,
        "columns": columns,
        "cursor": cursor,
        "form": StoryForm(),
        "archived": counts.get(Stage.ARCHIVED, 0),
        "empty": not counts,
        "demo": project.source.startswith(str(conf.home() / "demo")),
        "proposed": projects.proposed_version(project),
        "needs": needs.of_project(project, request.user, mine["rank"]),
    }
    return render(
        request,
        "pipeline/columns.html" if request.GET.get("part") == "columns" else "pipeline/board.html",
        context,
    )


@require_GET
def archived(request: HttpRequest, name: str) -> HttpResponse:
    project = project_for(request, name)
    rows = project.stories.filter(stage=Stage.ARCHIVED).order_by("-stage_at")[:500]
    return render(request, "pipeline/archived.html", {**rights(request, project), "stories": rows})


@require_POST
def story_create(request: HttpRequest, name: str) -> HttpResponse:
    project, form = project_for(request, name), StoryForm(request.POST)
    back = reverse("board", args=[name])
    if not form.is_valid():
        return render(
            request,
            "pipeline/story_form.html",
            {**rights(request, project), "form": form, "back": back},
            status=400,
        )
    try:
        story = stories.create_story(project, actor=actor(request), **form.values())
    except Refused as error:
        return refused(request, error, back)
    messages.success(request, f"Story {story.label} is in the backlog.")
    return redirect("board", name)


@require_http_methods(["GET", "POST"])
def story_edit(request: HttpRequest, name: str, number: int) -> HttpResponse:
    story = story_for(request, name, number)
    back = reverse("story", args=[name, number])
    form = StoryForm(request.POST) if request.method == "POST" else StoryForm.of(story)
    if request.method == "POST" and form.is_valid():
        try:
            stories.edit_story(story, actor=actor(request), **form.values())
        except Refused as error:
            return refused(request, error, back)
        return redirect(back)
    status = 400 if request.method == "POST" else 200
    return render(
        request,
        "pipeline/story_form.html",
        {**rights(request, story.project), "form": form, "back": back, "story": story},
        status=status,
    )


@require_GET
def story(request: HttpRequest, name: str, number: int) -> HttpResponse:
    """One story: its text, why it waits, what one can do, its history, sessions, gate runs, merges."""
    row = story_for(request, name, number)
    cursor = newest(f"project:{row.project_id}")
    gate_runs = list(row.gate_runs.select_related("process").order_by("-id")[:20])
    context = {
        **rights(request, row.project),
        "story": row,
        "criteria": row.criteria.all(),
        "changes": row.changes.order_by("-id")[:200],
        "gate_runs": gate_runs,
        "merges": row.merges.order_by("-id")[:20],
        "verbs": verbs_for(request, row),
        "cursor": cursor,
        **context_of([row]).get(row.pk, {}),
        "has_diff": bool(row.tip and row.base),
        "live_gate": next((run for run in gate_runs if run.state == "running" and run.process), None),
    }
    return render(
        request, "pipeline/story_part.html" if request.GET.get("part") else "pipeline/story.html", context
    )


def verbs_for(request: HttpRequest, row: Story) -> list[dict[str, Any]]:
    """What this person may do with the story where it stands."""
    found = [
        {"name": verb.name, "label": verb.label, "help": verb.help, "asks_why": verb.asks_why}
        for verb in person_verbs(row.stage)
        if may(request.user, str(verb.may), row.project)
    ]
    if (
        row.stage == Stage.CODING
        and may(request.user, "story.start", row.project)
        and (row.held_for or row.frozen)
    ):
        found.insert(0, {"name": "start", "label": "Start", "help": "Go on with it.", "asks_why": False})
    if (
        row.stage in (Stage.BACKLOG, Stage.CODING, Stage.QA, Stage.MERGE)
        and not row.held_for
        and may(request.user, "story.hold", row.project)
    ):
        found.append(
            {
                "name": "hold",
                "label": "Hold",
                "help": "Nothing starts by itself until someone starts it.",
                "asks_why": False,
            }
        )
    if may(request.user, "story.freeze", row.project):
        word = "unfreeze" if row.frozen else "freeze"
        found.append(
            {"name": word, "label": word.capitalize(), "help": "Keep it where it is.", "asks_why": False}
        )
    if row.needs_approval and may(request.user, "story.approve_files", row.project):
        found.insert(
            0,
            {
                "name": "approve_files",
                "label": "Approve these files",
                "help": row.needs_approval,
                "asks_why": False,
            },
        )
    return found


@require_POST
def story_do(request: HttpRequest, name: str, number: int, verb: str) -> HttpResponse:
    """One act on a story; `start` and `stop` are the agents' own views."""
    row = story_for(request, name, number)
    back = request.POST.get("next", "")
    back = reverse("board", args=[name]) if back == "board" else reverse("story", args=[name, number])
    try:
        stories.perform(row, verb, actor=actor(request), why=posted(request, "why"))
    except Refused as error:
        return refused(request, error, back)
    return redirect(back)


@require_http_methods(["GET", "POST"])
def story_delete(request: HttpRequest, name: str, number: int) -> HttpResponse:
    """GET says what would be lost, POST does it."""
    row = story_for(request, name, number)
    back = reverse("story", args=[name, number])
    try:
        stories.check_may(actor(request), "story.delete", row.project)
        if request.method == "POST":
            gone = deleting.delete_story(row, actor=actor(request))
            said = "is deleted" if gone else "is being deleted: it goes once nothing of it runs"
            messages.success(request, f"Story {row.label} {said}.")
            return redirect("board", name)
    except Refused as error:
        return refused(request, error, back)
    dependents = Dependency.objects.filter(on=row).order_by("story__number")
    context = {
        "story": row,
        "sessions": row.processes.filter(kind="agent").count(),
        "dependents": [f"#{number}" for number in dependents.values_list("story__number", flat=True)],
    }
    return render(request, "pipeline/story_delete.html", {**rights(request, row.project), **context})


@require_POST
def criterion_tick(request: HttpRequest, name: str, number: int, pk: int) -> HttpResponse:
    row = story_for(request, name, number)
    criterion = get_object_or_404(Criterion, pk=pk, story=row)
    try:
        stories.tick_criterion(criterion, not criterion.done, actor=actor(request))
    except Refused as error:
        return refused(request, error, reverse("story", args=[name, number]))
    return redirect("story", name, number)


@require_GET
def story_diff(request: HttpRequest, name: str, number: int) -> HttpResponse:
    """What the story's work changes, by file."""
    row = story_for(request, name, number)
    if not (row.tip and row.base):
        raise Http404
    try:
        found = diff(conf.control_path(row.project.key), row.base, row.tip, max_bytes=DIFF_BYTES)
    except GitError:
        return refused(request, unreadable(row.project), reverse("story", args=[name, number]))
    return render(
        request,
        "pipeline/diff.html",
        {**rights(request, row.project), "story": row, "files": by_file(found.text), "cut": found.cut},
    )


def by_file(text: str) -> list[dict[str, Any]]:
    """A unified diff as files with classed lines, for the template to escape."""
    files: list[dict[str, Any]] = []
    for line in text.splitlines():
        if line.startswith("diff --git ") or not files:
            files.append(
                {
                    "name": line.removeprefix("diff --git ").split(" b/")[-1],
                    "lines": [],
                    "added": 0,
                    "removed": 0,
                }
            )
            continue
        kind = {"+": "add", "-": "del", "@": "at"}.get(line[:1], "")
        if line.startswith(("+++", "---", "index ", "new file", "deleted file", "similarity")):
            kind = "meta"
        files[-1]["added"] += kind == "add"
        files[-1]["removed"] += kind == "del"
        files[-1]["lines"].append({"kind": kind, "text": line})
    return files


@require_GET
def gate_run(request: HttpRequest, pk: int) -> HttpResponse:
    """One evaluation of the gate, live while it runs."""
    run = get_object_or_404(GateRun.objects.select_related("story__project", "process"), pk=pk)
    project = project_for(request, run.story.project.name)
    events = logevents.last(run.process.pk, 500) if run.process else []
    return render(
        request,
        "pipeline/gate_run.html",
        {**rights(request, project), "run": run, "story": run.story, "events": events},
    )
