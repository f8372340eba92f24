"""What a story waits for: others of its project, which must be done or archived. A story whose last one is met starts by itself.

The edges of a project change under the lock of its row, so that two edits at once cannot close a circle. A dependency that was deleted is
never met: a person removes it. A story that a person put back into the backlog after all was met waits for a person; so does one that
is held or frozen; and one without dependencies always does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet, Subquery
from django.utils import timezone

from pipeline import events, moves
from pipeline.actors import SERVER, Actor
from pipeline.exceptions import BadInput
from pipeline.models import Dependency, Project, StageChange, Story
from pipeline.prepared import Select
from pipeline.stages import OVER, Stage

AT_MOST = 100
PUT_BACK = ("park", "restore")
ITS_TURN = "a person put it back into the backlog: start it when it is its turn"


def set_dependencies(story: Story, numbers: Sequence[int], *, actor: Actor) -> list[int]:
    """Let a story wait for exactly these numbers of its project; returns them in order. Raises NotAllowed, and BadInput naming what is wrong."""
    from pipeline.services import stories  # it writes dependencies itself

    stories.check_may(actor, "story.edit", story.project)
    with transaction.atomic():
        lock_project(story.project_id)
        stories.refuse_deleted(stories.locked(story))
        if write(story, numbers, actor=actor):
            events.record(story.project_id, "story", story=story, text=said(story, numbers, actor))
    promote(story.project_id)
    return sorted(set(numbers))


def lock_project(project_id: int) -> None:
    """Whoever changes edges of a project goes one after the other. Rows that name the project can be inserted meanwhile."""
    Project.objects.select_for_update(no_key=True).values_list("pk").get(pk=project_id)


def write(story: Story, numbers: Sequence[int], *, actor: Actor) -> bool:
    """The rows, and the history's; the caller holds the project's lock and tells the news. Returns whether anything changed. Raises BadInput."""
    wanted = sorted(set(numbers))
    rows = {row.number: row for row in story.dependencies.all()}
    if wanted == sorted(rows):
        return False
    if len(wanted) > AT_MOST:
        raise BadInput(f"Story {story.label} may depend on {AT_MOST} stories at most, not on {len(wanted)}.")
    new = [number for number in wanted if number not in rows]
    found = {each.number: each for each in Story.objects.filter(project_id=story.project_id, number__in=new)}
    for number in new:
        _refuse_unknown(story, number, found.get(number))
    _refuse_circle(story, list(found.values()))
    story.dependencies.exclude(number__in=wanted).delete()
    Dependency.objects.bulk_create(Dependency(story=story, on=found[number], number=number) for number in new)
    on = listed(f"#{number}" for number in wanted)
    moves.note(story, "depends", actor=actor, why=f"on {on}" if on else "on nothing any more")
    if not wanted and story.stage == Stage.BACKLOG:
        Story.objects.filter(pk=story.pk, stage=Stage.BACKLOG).update(waiting_for="")
    return True


def said(story: Story, numbers: Collection[int], actor: Actor) -> str:
    on = listed(f"#{number}" for number in sorted(set(numbers)))
    return f"{actor.name} made #{story.number} depend on {on or 'nothing'}"


def _refuse_unknown(story: Story, number: int, on: Story | None) -> None:
    if number == story.number:
        raise BadInput(f"Story {story.label} cannot depend on itself: leave #{number} out.")
    if on is None:
        raise BadInput(
            f"Story {story.label} cannot depend on #{number}: project {story.project.name} has no such story. Leave it out."
        )
    if on.deleting:
        raise BadInput(
            f"Story {story.label} cannot depend on #{number}: {on.deleting} is deleting it. Leave it out."
        )


def _refuse_circle(story: Story, on: Sequence[Story]) -> None:
    rows = Dependency.objects.filter(story__project_id=story.project_id, on__isnull=False)
    edges: dict[int, list[int]] = defaultdict(list)
    numbers = {story.pk: story.number, **{each.pk: each.number for each in on}}
    for waits, for_, number in rows.values_list("story_id", "on_id", "number"):
        edges[waits].append(for_)
        numbers[for_] = number
    for each in on:
        way = path(edges, each.pk, story.pk)
        if way:
            names = [f"#{numbers[pk]}" for pk in [story.pk, *way]]
            raise BadInput(
                f"Story {story.label} cannot depend on #{each.number}: each would wait for the next for ever, {' -> '.join(names)}. "
                "Remove one of these dependencies first."
            )


def path(edges: Mapping[int, Collection[int]], start: int, end: int) -> list[int]:
    """The way along the edges, both ends in it; empty when there is none."""
    came: dict[int, int | None] = {start: None}
    todo = [start]
    while todo:
        here = todo.pop()
        if here == end:
            way: list[int] = []
            step: int | None = here
            while step is not None:
                way.append(step)
                step = came[step]
            return way[::-1]
        for there in edges.get(here, ()):
            if there not in came:
                came[there] = here
                todo.append(there)
    return []


def _unmet() -> QuerySet[Any, tuple[int, int, int | None]]:
    rows = Dependency.objects.exclude(on__stage__in=OVER).order_by("number")
    return rows.values_list("story_id", "number", "on_id")


UNMET_OF_ONE: Select[tuple[int, int, int | None]] = Select(lambda story: _unmet().filter(story_id=story), int)


def unmet(story_ids: Collection[int]) -> dict[int, list[str]]:
    """Story id -> what it still waits for, as people name it; stories that wait for nothing are left out. One query."""
    if len(story_ids) == 1:
        rows: Iterable[tuple[int, int, int | None]] = UNMET_OF_ONE(*story_ids)
    else:
        rows = _unmet().filter(story_id__in=story_ids)
    found: dict[int, list[str]] = defaultdict(list)
    for story_id, number, on in rows:
        found[story_id].append(_named(number, on))
    return dict(found)


def promote(project_id: int) -> int:
    """Start every story of the backlog whose dependencies are all met, once; returns how many. The others are told what they wait for.

    One query when nothing is to be done. Not inside a transaction: each story is moved in one of its own.
    """
    moved = 0
    for story_id, told, waits, free in _backlog(project_id):
        if waits or not free:
            text = waits or ITS_TURN
            if told != text:
                _tell(project_id, story_id, told, text)
        elif _promote(project_id, story_id):
            moved += 1
    return moved


def _backlog(project_id: int, **more: int) -> list[tuple[int, str, str, bool]]:
    """(story, what it is told to wait for, what it does wait for, whether nobody put it back since all was met), lowest number first."""
    back = StageChange.objects.filter(story=OuterRef("story"), verb__in=PUT_BACK).order_by("-id").values("id")
    rows = (
        Dependency.objects.filter(
            story__project_id=project_id, story__stage=Stage.BACKLOG, story__deleting="", **more
        )
        .filter(story__held_for="", story__frozen=False)
        .annotate(put_back=Subquery(back[:1]))
        .annotate(
            edited=Exists(
                StageChange.objects.filter(
                    story=OuterRef("story"), verb="depends", id__gt=OuterRef("put_back")
                )
            ),
            met_later=Exists(
                StageChange.objects.filter(
                    story=OuterRef("on"), to_stage__in=OVER, id__gt=OuterRef("put_back")
                ).exclude(from_stage__in=OVER)
            ),
        )
        .order_by("story__number", "number")
    )
    columns = (
        "story_id",
        "story__waiting_for",
        "number",
        "on_id",
        "on__stage",
        "put_back",
        "edited",
        "met_later",
    )
    told: dict[int, str] = {}
    missing: dict[int, list[str]] = {}
    free: dict[int, bool] = {}
    for story_id, waiting_for, number, on, stage, put_back, edited, met_later in rows.values_list(*columns):
        told[story_id] = waiting_for
        names = missing.setdefault(story_id, [])
        if stage not in OVER:
            names.append(_named(number, on))
        free[story_id] = free.get(story_id, False) or put_back is None or edited or met_later
    return [(pk, told[pk], _sentence(missing[pk]), free[pk]) for pk in told]


def _promote(project_id: int, story_id: int) -> bool:
    """Looked at once more under the project's lock: edges and the story are then as they will be."""
    with transaction.atomic():
        lock_project(project_id)
        story = (
            Story.objects.select_for_update(of=("self",), no_key=True)
            .select_related("project")
            .filter(pk=story_id)
            .first()
        )
        if story is None or not any(
            free and not waits for _, _, waits, free in _backlog(project_id, story_id=story_id)
        ):
            return False
        moves.move(story, "deps_met", actor=SERVER, why=_why(story), waiting_since=timezone.now())
        text = f"#{story.number} starts: everything that it depends on is done"
        events.record(project_id, "story", story=story, text=text)
    return True


def _why(story: Story) -> str:
    """All are met; those that were archived without having landed are a warning."""
    rows = story.dependencies.select_related("on")
    over = [f"#{row.number}" for row in rows if row.on and (row.on.stage == Stage.DONE or row.on.landed)]
    given_up = [
        f"#{row.number}" for row in rows if row.on and row.on.stage == Stage.ARCHIVED and not row.on.landed
    ]
    parts = []
    if over:
        parts.append(f"{listed(over)} {'is' if len(over) == 1 else 'are'} done")
    if given_up:
        was = "was" if len(given_up) == 1 else "were"
        parts.append(
            f"warning: {listed(given_up)} {was} archived without having landed; look whether it can do without"
        )
    return "; ".join(parts)


def _tell(project_id: int, story_id: int, told: str, text: str) -> None:
    with transaction.atomic():
        rows = Story.objects.filter(pk=story_id, stage=Stage.BACKLOG, waiting_for=told)
        if rows.update(waiting_for=text):
            events.record(project_id, "story", story=Story(pk=story_id))


def _named(number: int, on: int | None) -> str:
    return f"#{number}" if on else f"#{number} (deleted: remove that dependency)"


def _sentence(missing: Sequence[str]) -> str:
    if not missing:
        return ""
    is_ = "is" if len(missing) == 1 else "are"
    return f"it starts by itself when {listed(missing)} {is_} done or archived"


def listed(names: Iterable[str]) -> str:
    """`#3`, `#3 and #4`, `#3, #4 and #5`."""
    *most, last = list(names) or [""]
    return f"{', '.join(most)} and {last}" if most else last
