"""What waits for a person in a project, each with its button: the board's "needs you" list. The apps above add theirs to `providers`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import Q
from django.urls import reverse

from pipeline.models import Project, Story
from pipeline.roles import Role, allows
from pipeline.services import gates, projectfiles
from pipeline.stages import Stage

SHOWN = 30


@dataclass(frozen=True, slots=True)
class Button:
    """Posts to `url`; a `link` only leads there. `verb`: the row of roles.MAY; `starter`: whose own work it is. `value`: what it decides."""

    label: str
    url: str
    verb: str = "see"
    starter: int | None = None
    value: str = ""
    link: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """`what`: one or two words; `title` and `why` are hostile text; `url`: its page."""

    what: str
    url: str
    title: str
    why: str
    buttons: tuple[Button, ...] = ()


providers: list[Callable[[Project], list[Need]]] = []


def of_project(project: Project, user: Any, role: Role | None) -> list[Need]:
    """With the buttons that this person may press. What an agent waits for at this moment stands first."""
    found = [need for provide in providers for need in provide(project)]
    return [
        replace(
            need,
            buttons=tuple(one for one in need.buttons if allows(role, one.verb, own=one.starter == user.pk)),
        )
        for need in [*found, *_stories(project)][:SHOWN]
    ]


def _stories(project: Project) -> list[Need]:
    """Blocked, not merged, touching what judges it, or in QA for a person."""
    waits = Q(stage__in=[Stage.BLOCKED, Stage.MERGE_FAILURE, Stage.QA]) | ~Q(needs_approval="")
    rows = project.stories.filter(waits, deleting="").exclude(stage__in=[Stage.DONE, Stage.ARCHIVED])
    file = None
    found = []
    for story in rows.order_by("stage_at")[:SHOWN]:
        story.project = project
        if story.stage == Stage.QA and not story.needs_approval:
            file = file or projectfiles.held_file(project)
            if gates.qa_mode(story, file) != "human" and not story.waiting_for:
                continue  # an agent looks at it
        found.append(_need(story))
    return found


def _need(story: Story) -> Need:
    page = reverse("story", args=[story.project.name, story.number])
    why = (
        story.reason or story.needs_approval or story.waiting_for or "Look at it, then approve or reject it."
    )
    look = Button("Look", page, link=True)
    if story.needs_approval and story.stage not in (Stage.BLOCKED, Stage.MERGE_FAILURE):
        buttons: tuple[Button, ...] = (_do(story, "approve_files", "Approve these files"), look)
        what = "approval"
    elif story.stage == Stage.BLOCKED:
        what, buttons = "blocked", (_do(story, "unblock", "Unblock"), look)
    elif story.stage == Stage.MERGE_FAILURE:
        what, buttons = "not merged", (_do(story, "send_back", "Back to the coder"), look)
    else:
        what, buttons = "review", (_do(story, "approve", "Approve"), look)
    return Need(what, page, f"#{story.number} {story.title}", why, buttons)


def _do(story: Story, verb: str, label: str) -> Button:
    return Button(label, reverse("story-do", args=[story.project.name, story.number, verb]), f"story.{verb}")
