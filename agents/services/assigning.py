"""auto_assign: give every waiting story a fitting free agent, in a fair order, and say beside each other one why it waits.

Idempotent, and cheap when nothing is to be done: one query when nothing waits, a handful when all agents are busy. It is called after
every change by the queue and by a sweep. A look without locks makes a plan; what it grants is planned again behind the lock that all claims
take, and written in one transaction; two passes at once meet there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from agents.exceptions import MustWait, NoCoder
from agents.models import Session
from agents.services import choosing, fairness, looking, pool
from agents.services.fairness import Claimant, Served
from agents.services.pool import Grant
from agents.states import Role
from pipeline import events
from pipeline.actors import SERVER
from pipeline.models import Capacity, GateRun, Project, Story
from pipeline.prepared import Select, Update
from pipeline.services import dependencies, gates
from pipeline.stages import Stage
from pipeline.unsynced import unsynced

AT_ONCE = 16
"""Claims of one transaction: the lock that all claims wait for is held some 15 ms for these."""
NAMED_PLACES = 5
"""Stories this near the front of a line are told who is at work for how long; their sentences change each minute."""
NO_QA_AGENT = "Its QA: the project has no qa agent, so a person approves or rejects it."
SAID_AT_ONCE = 50
MINUTES = re.compile(r" for (\d+ min|less than a minute)")


def auto_assign() -> int:
    """One pass over all projects. Returns how many sessions were claimed."""
    promotable = Story.objects.filter(stage=Stage.BACKLOG, dependencies__isnull=False)
    for project_id in promotable.values_list("project_id", flat=True).distinct():
        dependencies.promote(project_id)
    rows = waiting()
    if not rows:
        return 0
    served = fairness.served_of(rows.values())
    claimed, reasons = 0, dict[int, MustWait]()
    while rows:
        look = choosing.Pool.look(list(rows.values()))
        plan = Plan.made(rows, look, served)
        reasons = plan.reasons
        if not plan.grants:
            break
        turn = _claim_some([grant.story for grant in plan.grants], served)
        claimed += len(turn.sessions)
        reasons |= turn.reasons
        rows = {pk: story for pk, story in rows.items() if pk not in turn.gone}
        if not turn.gone:
            break
    order = sorted(
        (_claimant(row, look.now) for row in rows.values()),
        key=lambda each: fairness.rank(each, served, look.now),
    )
    _say(rows, reasons, order)
    return claimed


@dataclass(slots=True)
class Plan:
    """Who gets which agent, and why each other one must wait: on one look at the pool, in the fair order, at most AT_ONCE of them."""

    grants: list[Grant] = field(default_factory=list)
    reasons: dict[int, MustWait] = field(default_factory=dict)

    @classmethod
    def made(cls, rows: Mapping[int, Story], look: choosing.Pool, served: Served) -> Plan:
        plan, served = cls(), served.copy()
        pending = {pk: _claimant(row, look.now) for pk, row in rows.items()}
        while pending and len(plan.grants) < (1 if plan.grants and look.budgeted else AT_ONCE):
            for claimant in sorted(pending.values(), key=lambda each: fairness.rank(each, served, look.now)):
                story = rows[claimant.story]
                role = _role(story)
                try:
                    grant = pool.chosen(story, look, role=role)
                except MustWait as wait:
                    plan.reasons[story.pk] = wait
                    continue
                except NoCoder as none:
                    plan.reasons[story.pk] = MustWait(none.message if role == Role.CODER else NO_QA_AGENT)
                    continue
                del pending[story.pk]
                plan.reasons.pop(story.pk, None)
                plan.grants.append(grant)
                look.count(story, grant.agent)
                served.serve(claimant)
                break
            else:
                break
        return plan


@dataclass(slots=True)
class Turn:
    """What came of a plan."""

    sessions: list[Session] = field(default_factory=list)
    reasons: dict[int, MustWait] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    """The stories that wait no longer: they have a session, or something else happened to them."""


def _claim_some(stories: Sequence[Story], served: Served) -> Turn:
    """Claim them in one transaction, as far as they still can be; if one of them is refused by the database, each in its own."""
    try:
        return _claim(stories, served)
    except MustWait as wait:
        if len(stories) == 1:
            return Turn(reasons={stories[0].pk: wait})
    whole = Turn()
    for story in stories:
        one = _claim_some([story], served)
        whole.sessions += one.sessions
        whole.reasons |= one.reasons
        whole.gone |= one.gone
    return whole


def _claim(stories: Sequence[Story], served: Served) -> Turn:
    """On the stories and the pool as they are now, behind the lock. Raises MustWait when the database refused one of them."""
    asked = [story.pk for story in stories]
    with transaction.atomic():
        Capacity.lock()
        fresh = {story.pk: story for story in STILL_WANTING(*padded(asked))}
        for pk, role in WORKED(*padded(asked)):
            if pk in fresh and role == _role(fresh[pk]):
                del fresh[pk]
        turn = Turn(gone=set(asked) - set(fresh))
        if not fresh:
            return turn
        look = choosing.Pool.look(list(fresh.values()))
        plan = Plan.made(fresh, look, served)
        turn.reasons = plan.reasons
        if plan.grants:
            turn.sessions += pool.open_sessions(plan.grants, look.host, actor=SERVER)
            events.record_stories(grant.story for grant in plan.grants)
    for grant in plan.grants:
        served.serve(_claimant(grant.story, look.now))
        turn.gone.add(grant.story.pk)
    return turn


def _role(story: Story) -> Role:
    return Role.QA if story.stage == Stage.QA else Role.CODER


def unserved() -> QuerySet[Story]:
    """In coding or QA, unhindered, and nothing of ours works on them."""
    role = Q(role=Role.CODER)
    return Story.objects.filter(
        choosing.wanting(Role.CODER)
        & ~Q(pk__in=Session.objects.live().filter(role).values("story_id"))
        & ~Q(pk__in=GateRun.objects.exclude(state="over").values("story_id"))
        | choosing.wanting(Role.QA)
        & ~Q(pk__in=Session.objects.live().filter(role=Role.QA).values("story_id"))
    ).order_by("id")


UNSERVED: Select[Story] = Select(unserved)
PROJECT: Select[Project] = Select(lambda pk: Project.objects.filter(pk=pk), int)


def waiting() -> dict[int, Story]:
    """The stories that want an agent, unhindered and without live work; those that only want their gate get it."""
    found: dict[int, Story] = {}
    projects: dict[int, Project] = {}
    for story in UNSERVED():
        if story.project_id not in projects:
            [projects[story.project_id]] = PROJECT(story.project_id)
        story.project = projects[story.project_id]
        if story.stage == Stage.QA:
            if looking.wanted(story):
                found[story.pk] = story
        elif gates.owed(story):
            gates.request_gate(story, purpose="coding", commit=story.tip)
        else:
            found[story.pk] = story
    return found


def _claimant(story: Story, now: datetime) -> Claimant:
    return Claimant(
        story=story.pk,
        number=story.number,
        project=story.project_id,
        person=story.asked_by_id or story.owner_id,
        priority=story.priority,
        since=story.waiting_since or now,
    )


def padded(numbers: Sequence[int]) -> list[int]:
    """As many as a statement has places for."""
    return [*numbers, *[numbers[0]] * (AT_ONCE - len(numbers))]


STILL_WANTING: Select[Story] = Select(
    lambda *pks: (
        Story.objects.select_for_update(of=("self",), no_key=True)
        .select_related("project")
        .filter(choosing.wanting(Role.CODER) | choosing.wanting(Role.QA), pk__in=pks)
        .order_by("pk")
    ),
    *[int] * AT_ONCE,
)
WORKED: Select[tuple[int, str]] = Select(
    lambda *pks: Session.objects.live().filter(story__in=pks).values_list("story_id", "role"),
    *[int] * AT_ONCE,
)


class Said(NamedTuple):
    """What is told of a story, and whether its readers must hear of it at once."""

    story: Story
    text: str
    news: bool


def _say(rows: dict[int, Story], reasons: dict[int, MustWait], order: list[Claimant]) -> None:
    """Write beside each story why it waits. Only what changed is written; a minute more is told to the first in line alone."""
    places: Counter[str] = Counter()
    said: list[Said] = []
    for claimant in order:
        wait, story = reasons.get(claimant.story), rows[claimant.story]
        if wait is None:
            continue
        places[wait.line] += bool(wait.line)
        place = places[wait.line]
        text = wait.at(place) if place <= NAMED_PLACES else MustWait(wait.head, line=wait.line).at(place)
        if story.stage == Stage.QA and wait.message != NO_QA_AGENT:
            text = f"{text}; a person may approve or reject it meanwhile"
        if text == story.waiting_for and story.waiting_since:
            continue
        news = MINUTES.sub("", text) != MINUTES.sub("", story.waiting_for) or place <= NAMED_PLACES
        said.append(Said(story, text, news))
    said.sort(key=lambda one: one.story.pk)
    for begin in range(0, len(said), SAID_AT_ONCE):
        _write(said[begin : begin + SAID_AT_ONCE])


def _write(said: Sequence[Said]) -> None:
    """In one transaction, which waits for nobody: of a story that something happens to just now the next pass tells."""
    now = timezone.now()
    with unsynced(), transaction.atomic():
        free = {one.story.pk for one in said}
        if transaction.get_connection().features.has_select_for_update:
            rows = Story.objects.select_for_update(of=("self",), no_key=True, skip_locked=True)
            free = set(rows.filter(pk__in=free).order_by("pk").values_list("pk", flat=True))
        changed = []
        for story, text, news in said:
            if story.pk not in free:
                continue
            seen = (story.pk, story.fence, story.stage, story.waiting_for)
            if (
                SAY(*seen, text)
                if story.waiting_since
                else _as_seen(*seen).update(waiting_for=text, waiting_since=now)
            ) and news:
                changed.append(story)
        events.record_stories(changed)


def _as_seen(pk: Any, fence: Any, stage: Any, waiting_for: Any) -> QuerySet[Story]:
    return Story.objects.filter(pk=pk, fence=fence, stage=stage, held_for="", waiting_for=waiting_for)


SAY = Update(
    lambda pk, fence, stage, waiting_for, text: (
        _as_seen(pk, fence, stage, waiting_for),
        {"waiting_for": text},
    ),
    int,
    int,
    str,
    str,
    str,
)
