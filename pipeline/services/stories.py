"""The verbs of a story that need no agent: make it, edit it, and move it by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F

from pipeline import events, moves, signals
from pipeline.actors import Actor
from pipeline.exceptions import BadInput, NotAllowed, NotFound, Refused, TransitionRefused
from pipeline.models import Criterion, Project, Story
from pipeline.models.project import ProjectState
from pipeline.prepared import Select
from pipeline.roles import MAY, may
from pipeline.services import dependencies
from pipeline.stages import Stage
from pipeline.texts import storable
from pipeline.transitions import VERBS, verb_towards

CRITERIA_AT_MOST = 200
PRIORITY_AT_MOST = 1000
MINUTES_AT_MOST = 1_000_000
UNCHANGED = -1


def create_story(
    project: Project,
    *,
    title: str,
    actor: Actor,
    kind: str = "story",
    description: str = "",
    criteria: Sequence[str] = (),
    preferred_agent: str = "",
    qa: str = "",
    depends_on: Sequence[int] = (),
    priority: int = 0,
    any_agent_after: int | None = None,
) -> Story:
    """A new story in the backlog, with the next number of its project. Raises BadInput naming each wrong field.

    `depends_on`: numbers of its project; it starts by itself when they are done. `any_agent_after`: minutes, None = never.
    """
    check_may(actor, "story.create", project)
    if project.state == ProjectState.REFUSED:
        raise BadInput(f"Project {project.name} cannot take stories: {project.reason}")
    texts = [text.strip() for text in criteria if text.strip()]
    if len(texts) > CRITERIA_AT_MOST:
        raise BadInput(
            f"A story has at most {CRITERIA_AT_MOST} acceptance criteria; this one has {len(texts)}. Make several stories of it."
        )
    story = Story(
        project=project,
        title=title.strip(),
        kind=kind,
        description=description.strip(),
        preferred_agent=preferred_agent.strip(),
        qa=qa,
        priority=priority,
        any_agent_after=any_agent_after,
        owner=actor.user,
        number=1,
    )
    rows = [Criterion(story=story, position=n, text=text) for n, text in enumerate(texts, 1)]
    valid(story)
    for row in rows:
        valid(row, exclude={"story"})
    with transaction.atomic():
        # The counter's row is locked by the UPDATE: two creates get two numbers.
        Project.objects.filter(pk=project.pk).update(next_number=F("next_number") + 1)
        story.number = Project.objects.values_list("next_number", flat=True).get(pk=project.pk) - 1
        story.save(force_insert=True)
        for row in rows:
            row.story = story
        Criterion.objects.bulk_create(rows)
        moves.note(story, "create", actor=actor)
        dependencies.write(story, depends_on, actor=actor)
        events.record(project.pk, "story", story=story, text=f"{actor.name} wrote #{story.number}")
    if depends_on:
        dependencies.promote(project.pk)
        story.refresh_from_db()
    return story


def edit_story(
    story: Story,
    *,
    actor: Actor,
    title: str | None = None,
    description: str | None = None,
    kind: str | None = None,
    preferred_agent: str | None = None,
    qa: str | None = None,
    criteria: Sequence[str] | None = None,
    depends_on: Sequence[int] | None = None,
    priority: int | None = None,
    any_agent_after: int | None = UNCHANGED,
) -> Story:
    """Change what is given; a criterion whose text stays keeps its tick. A running session keeps the text it began with.

    `any_agent_after`: minutes, None = never.
    """
    check_may(actor, "story.edit", story.project)
    given: dict[str, str | None] = {
        "title": title,
        "description": description,
        "kind": kind,
        "preferred_agent": preferred_agent,
        "qa": qa,
    }
    changed: dict[str, Any] = {name: value.strip() for name, value in given.items() if value is not None}
    if priority is not None:
        changed["priority"] = priority
    if any_agent_after != UNCHANGED:
        changed["any_agent_after"] = any_agent_after
    for name, value in changed.items():
        setattr(story, name, value)
    valid(story)
    with transaction.atomic():
        if depends_on is not None:
            dependencies.lock_project(story.project_id)
        refuse_deleted(locked(story))
        if changed:
            Story.objects.filter(pk=story.pk).update(**changed)
        if criteria is not None:
            ticked = {c.text for c in story.criteria.all() if c.done}
            rows = [
                Criterion(story=story, position=n, text=text.strip(), done=text.strip() in ticked)
                for n, text in enumerate((t for t in criteria if t.strip()), 1)
            ]
            for row in rows:
                valid(row, exclude={"story"})
            story.criteria.all().delete()
            Criterion.objects.bulk_create(rows)
        linked = depends_on is not None and dependencies.write(story, depends_on, actor=actor)
        what = ", ".join([*changed, *(["criteria"] if criteria is not None else [])])
        if what or not linked:
            moves.note(story, "edit", actor=actor, why=what)
        told = f"{actor.name} edited #{story.number}: {what}" if what else ""
        if linked:
            told = dependencies.said(story, depends_on or (), actor)
        events.record(story.project_id, "story", story=story, text=told)
    if linked:
        dependencies.promote(story.project_id)
        story.refresh_from_db()
    return story


def tick_criterion(criterion: Criterion, done: bool, *, actor: Actor) -> None:
    story = criterion.story
    check_may(actor, "story.edit", story.project)
    with transaction.atomic():
        refuse_deleted(locked(story))
        if Criterion.objects.filter(pk=criterion.pk, done=not done).update(done=done):
            moves.note(story, "tick" if done else "untick", actor=actor, why=criterion.text)
            events.record(story.project_id, "story", story=story)


def perform(story: Story, verb_name: str, *, actor: Actor, why: str = "") -> Story:
    """One act of a person on a story: an arrow of the table, or freeze, unfreeze, hold, approve_files. One transaction.

    `start` is not here: it needs an agent (agents.services.pool). Raises NotAllowed, BadInput, TransitionRefused.
    """
    why = storable(why.strip(), "reason")
    special = {"freeze": _freeze, "unfreeze": _unfreeze, "hold": _hold, "approve_files": _approve_files}
    with transaction.atomic():
        story = locked(story)
        refuse_deleted(story)
        if verb_name in special:
            check_may(
                actor, "story.freeze" if verb_name == "unfreeze" else f"story.{verb_name}", story.project
            )
            special[verb_name](story, actor, why)
        else:
            verb = VERBS.get(verb_name)
            if verb is None or verb.may is None or verb_name == "start":
                raise BadInput(f"{verb_name!r} is nothing one can do with a story by itself.")
            check_may(actor, verb.may, story.project)
            if verb.asks_why and not why:
                raise BadInput(
                    f"Story {story.label}: say why ({verb.label.lower()} needs a reason, which others will read)."
                )
            if verb_name == "approve" and story.tip == "":
                raise TransitionRefused(
                    f"Story {story.label} cannot be approved: there is no work of it yet. Send it back to the coder."
                )
            if verb.stops_work:
                signals.work_must_stop.send(
                    sender=Story, story=story, actor=actor, why=why or verb.label.lower()
                )
            fields: dict[str, Any] = {}
            if verb_name == "block":
                fields["reason"] = f"{actor.name} blocked it: {why} Unblock it when that is settled."
            if verb_name in ("reject", "send_back", "reopen"):
                fields["next_prompt"], fields["next_kind"] = (
                    _told_by(actor, verb_name, why or story.reason),
                    "notes",
                )
            if verb_name in ("unblock", "send_back", "reject", "reopen", "retry_merge", "park", "restore"):
                fields["held_for"] = ""
            story = moves.move(story, verb_name, actor=actor, why=why, **fields)
        events.record(story.project_id, "story", story=story, text=_told(story, verb_name, actor, why))
    return story


def move_to(story: Story, stage: str, *, actor: Actor, why: str = "") -> Story:
    """`story move N STAGE`: the arrow of the table that leads there from where the story stands now."""
    if stage not in Stage.values:
        raise BadInput(f"{stage!r} is no stage; the stages are {', '.join(Stage.values)}.")
    verb = verb_towards(story.stage, stage)
    if verb is None:
        ways = [
            f"{v.name} ({v.target or 'where it was'})"
            for v in VERBS.values()
            if v.may and story.stage in v.sources
        ]
        raise TransitionRefused(
            f"Story {story.label} cannot move from {story.stage} to {stage}: there is no such way. From here: {', '.join(ways) or 'none'}."
        )
    return perform(
        story, verb.name, actor=actor, why=why or (f"moved by {actor.name}" if verb.asks_why else "")
    )


def find_story(text: str, *, project: Project | None = None) -> Story:
    """`7` or `web/7`. A bare number must fit one project only. Raises NotFound, BadInput."""
    found = re.fullmatch(r"(?:([a-z0-9][a-z0-9-]*)/)?#?(\d{1,9})", text)
    if not found:
        raise BadInput(
            f"{text!r} is no story; write its number, such as 7, or project and number, such as web/7."
        )
    rows = Story.objects.select_related("project").filter(number=int(found[2]))
    if found[1]:
        rows = rows.filter(project__name=found[1])
    elif project is not None:
        rows = rows.filter(project=project)
    stories = list(rows[:10])
    if not stories:
        raise NotFound(f"There is no story {text}. `story list` shows those there are.")
    if len(stories) > 1:
        raise BadInput(
            f"Story {found[2]} fits several projects: {', '.join(s.label for s in stories)}. Name the one you mean."
        )
    return stories[0]


LOCKED: Select[Story] = Select(
    lambda pk: (
        Story.objects.select_for_update(of=("self",), no_key=True).select_related("project").filter(pk=pk)
    ),
    int,
)


def locked(story: Story) -> Story:
    """The story as it is now, locked until the transaction ends. Raises NotFound when it was deleted meanwhile."""
    found = LOCKED.first(story.pk)
    if found is None:
        raise NotFound(f"Story {story.label} was deleted meanwhile, so nothing can be done with it any more.")
    return found


def refuse_deleted(story: Story) -> None:
    if story.deleting:
        raise Refused(
            f"Story {story.label} is being deleted by {story.deleting}; it goes once nothing of it runs."
        )


def check_may(actor: Actor, verb: str, project: Project | None) -> None:
    """The server and the command line on its host may do everything; a person what the table says."""
    if actor.user is not None and not may(actor.user, verb, project):
        where = f" in project {project.name}" if project else ""
        role = f"{MAY[verb].label} or a higher one" if project else "admin of the whole server"
        raise NotAllowed(f"{actor.name} may not do this{where}: {verb} needs the role {role}.")


def valid(row: Story | Criterion, exclude: set[str] | None = None) -> None:
    if isinstance(row, Story):
        if abs(row.priority) > PRIORITY_AT_MOST:
            raise BadInput(
                f"A story's priority lies between {-PRIORITY_AT_MOST} and {PRIORITY_AT_MOST}; {row.priority} does not."
            )
        if not 0 <= (row.any_agent_after or 0) <= MINUTES_AT_MOST:
            raise BadInput(
                f"Any agent may take a story after 0 to {MINUTES_AT_MOST} minutes, not after {row.any_agent_after}."
            )
    for field in row._meta.concrete_fields:
        if isinstance(value := getattr(row, field.attname), str):
            storable(value, str(field.verbose_name))
    try:
        row.full_clean(exclude=exclude, validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        said = "; ".join(f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items())
        raise BadInput(f"This cannot be saved. {said}") from error


def _told_by(actor: Actor, verb: str, why: str) -> str:
    what = {
        "reject": "did not accept the work",
        "send_back": "sent the work back",
        "reopen": "asks for more work",
    }[verb]
    return f"{actor.name} {what}:\n\n{why}"


def _told(story: Story, verb: str, actor: Actor, why: str) -> str:
    """The news of an act, which agents of other stories read too."""
    said = f"{actor.name}: {verb.replace('_', ' ')} #{story.number}"
    return f"{said}, {why}" if why else said


def _set(story: Story, **values: object) -> None:
    Story.objects.filter(pk=story.pk).update(**values)
    story.refresh_from_db()


def _freeze(story: Story, actor: Actor, why: str) -> None:
    if story.frozen:
        raise Refused(f"Story {story.label} is frozen already.")
    _set(story, frozen=True, not_before=None)
    moves.note(story, "freeze", actor=actor, why=why)


def _unfreeze(story: Story, actor: Actor, why: str) -> None:
    if not story.frozen:
        raise Refused(f"Story {story.label} is not frozen.")
    _set(story, frozen=False)
    moves.note(story, "unfreeze", actor=actor, why=why)


def _hold(story: Story, actor: Actor, why: str) -> None:
    if story.stage not in (Stage.BACKLOG, Stage.CODING, Stage.QA, Stage.MERGE):
        raise TransitionRefused(
            f"Story {story.label} cannot be held: in {story.get_stage_display().lower()} nothing happens by itself."
        )
    _set(
        story,
        held_for=f"held by {actor.name}" + (f": {why}" if why else ""),
        fence=F("fence") + 1,
        not_before=None,
    )
    signals.work_must_stop.send(sender=Story, story=story, actor=actor, why=why or "held")
    moves.note(story, "hold", actor=actor, why=why)


def _approve_files(story: Story, actor: Actor, why: str) -> None:
    if not story.needs_approval:
        raise Refused(f"Story {story.label} has no change that waits for an admin's approval.")
    _set(story, needs_approval="", files_approved=story.tip, waiting_for="")
    moves.note(story, "approve_files", actor=actor, why=why)
