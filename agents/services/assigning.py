"""auto_assign: give every waiting story a fitting free agent, in a fair order, and say beside each other one why it waits.

Idempotent, and cheap when nothing is to be done: one query when nothing waits, a handful when all agents are busy. It is called after
every change by the queue and by a sweep; two passes at once meet in the claim's lock.
"""

from __future__ import annotations

import re
from collections import Counter

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from agents.exceptions import MustWait, NoCoder
from agents.models import Session
from agents.services import choosing, fairness, looking, pool
from agents.services.fairness import Claimant
from agents.states import Role
from pipeline import events
from pipeline.actors import SERVER
from pipeline.models import Capacity, GateRun, Story
from pipeline.prepared import Select
from pipeline.services import dependencies, gates
from pipeline.stages import Stage

NAMED_PLACES = 5
"""Stories this near the front of a line are told who is at work for how long; their sentences change each minute."""
NO_QA_AGENT = "Its QA: the project has no qa agent, so a person approves or rejects it."
MINUTES = re.compile(r" for (\d+ min|less than a minute)")


def auto_assign() -> int:
    """One pass over all projects. Returns how many sessions were claimed."""
    promotable = Story.objects.filter(stage=Stage.BACKLOG, dependencies__isnull=False)
    for project_id in promotable.values_list("project_id", flat=True).distinct():
        dependencies.promote(project_id)
    rows = waiting()
    if not rows:
        return 0
    look = choosing.Pool.look(list(rows.values()))
    served = fairness.served_of(rows)
    pending = {pk: _claimant(row, look) for pk, row in rows.items()}
    reasons: dict[int, MustWait] = {}
    claimed = 0
    while pending:
        for claimant in sorted(pending.values(), key=lambda each: fairness.rank(each, served, look.now)):
            story = rows[claimant.story]
            role = Role.QA if story.stage == Stage.QA else Role.CODER
            try:
                choosing.choose(story, look, role=role)
                session = _claim(story, role)
            except MustWait as wait:
                reasons[story.pk] = wait
                continue
            except NoCoder as none:
                reasons[story.pk] = MustWait(none.message if role == Role.CODER else NO_QA_AGENT)
                continue
            del pending[story.pk]
            if session is not None:
                claimed += 1
                reasons.pop(story.pk, None)
                look.take(session, story.number)
                served.serve(claimant, session.pk)
                break
        else:
            break
    _say(rows, reasons, sorted(pending.values(), key=lambda each: fairness.rank(each, served, look.now)))
    return claimed


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


def waiting() -> dict[int, Story]:
    """The stories that want an agent, unhindered and without live work; those that only want their gate get it."""
    rows = fairness.with_last_served(unserved()).select_related("project")
    found: dict[int, Story] = {}
    for story in rows:
        if story.stage == Stage.QA:
            if looking.wanted(story):
                found[story.pk] = story
        elif gates.owed(story):
            gates.request_gate(story, purpose="coding", commit=story.tip)
        else:
            found[story.pk] = story
    return found


def _claimant(story: Story, look: choosing.Pool) -> Claimant:
    return Claimant(
        story=story.pk,
        number=story.number,
        project=story.project_id,
        person=story.person_id,  # type: ignore[attr-defined]
        priority=story.priority,
        since=story.waiting_since or look.now,
    )


def _still_wanting(role: Role) -> Select[Story]:
    rows = Story.objects.select_for_update(of=("self",), no_key=True).select_related("project")
    return Select(lambda pk: rows.filter(choosing.wanting(role), pk=pk), int)


STILL_WANTING = {role: _still_wanting(role) for role in (Role.CODER, Role.QA)}


def _claim(story: Story, role: Role) -> Session | None:
    """The claim in its own transaction, on the story as it is now; None when it no longer waits. Raises MustWait, NoCoder."""
    with transaction.atomic():
        Capacity.lock()
        fresh = STILL_WANTING[role].first(story.pk)
        if fresh is None or any(session.role == role for session in pool.LIVE_ON(story.pk)):
            return None
        session = pool.claim(fresh, actor=SERVER, role=role)
        events.record(fresh.project_id, "story", story=fresh)
    return session


def _say(rows: dict[int, Story], reasons: dict[int, MustWait], order: list[Claimant]) -> None:
    """Write beside each story why it waits. Only what changed is written; a minute more is told to the first in line alone."""
    places: Counter[str] = Counter()
    now = timezone.now()
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
        with transaction.atomic():
            changed = Story.objects.filter(
                pk=story.pk, fence=story.fence, stage=story.stage, held_for="", waiting_for=story.waiting_for
            ).update(waiting_for=text, waiting_since=story.waiting_since or now)
            if changed and (
                MINUTES.sub("", text) != MINUTES.sub("", story.waiting_for) or place <= NAMED_PLACES
            ):
                events.record(story.project_id, "story", story=story)
