"""Pages of agents: who works on what since when, who waits and why; and the buttons start, assign, stop, pause, resume."""

from __future__ import annotations

from typing import Any

from django.db.models import F, Q, Window
from django.db.models.functions import RowNumber
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from agents.models import Agent, Session
from agents.services import faces, pool, roster, using
from agents.services.choosing import Pool
from agents.views import told
from pipeline.exceptions import BadInput, Refused
from pipeline.live.topics import TOPICS_AT_MOST, newest
from pipeline.models import Act, Project, Story
from pipeline.roles import may
from pipeline.services.stories import find_story
from pipeline.stages import ACTIVE, OVER
from pipeline.views import actor, posted, project_for, refused, rights

RECENT = 12
WAITING_AT_MOST = 60
OFFERED_AT_MOST = 50
"""Stories of each project and stage, so that no long backlog hides what others could take."""
VERBS = ("start", "assign", "stop", "pause", "resume")


@require_GET
def project_agents(request: HttpRequest, name: str) -> HttpResponse:
    """The agents of one project; `?part=1` only what changes."""
    project = project_for(request, name)
    return _page(request, [project], {**rights(request, project), "limits": using.limits(project)})


@require_GET
def all_agents(request: HttpRequest) -> HttpResponse:
    """The agents of every project that the person may see."""
    rows = list(Project.objects.visible_to(request.user).order_by("name"))
    return _page(request, rows, {"limits": using.limits() if request.user.is_superuser else []})


def _page(request: HttpRequest, projects: list[Project], more: dict[str, Any]) -> HttpResponse:
    cursors = cursors_of(projects)
    waiting = Story.objects.filter(project__in=projects, stage__in=ACTIVE).exclude(waiting_for="")
    offered = offered_of(projects)
    sessions = Session.objects.filter(project__in=projects).select_related(
        "story__project", "agent", "project"
    )
    look = Pool.look([])
    context = {
        **more,
        "closed": look.closed,
        "groups": [_group(request, row, offered, look) for row in projects],
        "waiting": waiting.select_related("project").order_by("waiting_since", "number")[:WAITING_AT_MOST],
        "waiting_in_all": waiting.count(),
        "sessions": sessions.defer("prompt", "entry").order_by("-id")[:RECENT],
        "acts": acts_of(projects, everything=bool(request.user.is_superuser) and "project" not in more),
        "cursors": cursors,
    }
    return render(
        request, "agents/agents_part.html" if request.GET.get("part") else "agents/agents.html", context
    )


def cursors_of(projects: list[Project]) -> dict[str, int]:
    """Topic -> where its news stands, for as many projects as one socket may listen to. Taken before the rows are read.

    Of the others such a page tells when it looks again by itself (`data-refresh`).
    """
    return {f"project:{row.pk}": newest(f"project:{row.pk}") for row in projects[:TOPICS_AT_MOST]}


def _group(request: HttpRequest, project: Project, offered: list[Story], look: Pool) -> dict[str, Any]:
    """The faces of a project, with what this person may do with each and the stories that each could take."""
    rows = faces.of_agents(Agent.objects.filter(project=project), look)
    with_whom = {face.session.story_id: face.agent.name for face in rows if face.session}
    mine = [story for story in offered if story.project_id == project.pk]
    for story in mine:
        story.on_it = with_whom.get(story.pk, "")  # type: ignore[attr-defined]
    shown = [face for face in rows if face.state != "gone"]
    return {
        "faces": [{"face": face, "offers": offers(face.agent.role, mine)} for face in shown],
        "working": sum(face.session is not None for face in shown),
        **group_of(request, project),
    }


def group_of(request: HttpRequest, project: Project) -> dict[str, Any]:
    """What this person may do with the project's agents: which buttons are offered."""
    return {
        "project": project,
        "may_start": may(request.user, "story.start", project),
        "may_pause": may(request.user, "agent.pause", project),
    }


def offered_of(projects: list[Project]) -> list[Story]:
    """The stories of the projects that an agent could be started on: the first of each stage."""
    place = Window(RowNumber(), partition_by=[F("project_id"), F("stage")], order_by="number")
    rows = Story.objects.filter(project__in=projects, deleting="").exclude(stage__in=OVER)
    found = rows.annotate(place=place).filter(place__lte=OFFERED_AT_MOST)
    return list(found.order_by("project_id", "number"))


def offers(role: str, stories: list[Story]) -> list[Story]:
    """The stories that an agent of the role could be started on, from where they stand."""
    return [story for story in stories if story.stage in pool.STAGES[role]]


def acts_of(projects: list[Project], *, everything: bool = False) -> list[Act]:
    """The last acts that name one of the projects (as limiting and roster write them); or all of the server."""
    named = Q(pk__in=[])
    for row in projects:
        named |= Q(subject__contains=f" {row.name}/") | Q(subject__endswith=f"project {row.name}")
    rows = Act.objects.all() if everything else Act.objects.filter(named)
    return list(rows.order_by("-id")[:RECENT])


@require_POST
def agent_do(request: HttpRequest, name: str, agent: str, verb: str) -> HttpResponse:
    """One act on an agent: start or assign (with `story`), stop, pause (with `why`), resume."""
    project = project_for(request, name)
    row = get_object_or_404(Agent.objects.select_related("project"), project=project, name=agent)
    back = reverse("all-agents") if request.POST.get("next") == "all" else reverse("agents", args=[name])
    try:
        perform(request, row, verb)
    except Refused as error:
        return refused(request, error, back)
    return redirect(back)


def perform(request: HttpRequest, agent: Agent, verb: str) -> None:
    """Calls the verb, and tells what the page does not show by itself. Raises Refused."""
    who = actor(request)
    if verb in ("start", "assign"):
        # The number alone: a story of another project is none of this page's business, not even that it exists.
        story = find_story(f"{agent.project.name}/{posted(request, 'story').lstrip('#')}")
        if verb == "start":
            started = pool.start_story(story, actor=who, agent_name=agent.name)
        else:
            started = roster.assign(story, agent.name, actor=who)
        told(request, story, started)
    elif verb == "stop":
        roster.stop_agent(agent, actor=who, why=posted(request, "why"))
    elif verb == "pause":
        roster.pause_agent(agent, actor=who, why=posted(request, "why"))
    elif verb == "resume":
        roster.resume_agent(agent, actor=who)
    else:
        raise BadInput(f"{verb!r} is nothing one can do with an agent; there are {', '.join(VERBS)}.")
