"""Real processes at once: grants are counted, not only final states."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from agents.models import Limit, Session
from pipeline import moves
from pipeline.models import StageChange, Story
from tests import factories
from tests.racing import together

pytestmark = pytest.mark.django_db(transaction=True)
RACER = Path(__file__).with_name("racer.py")
CHURNER = Path(__file__).with_name("churner.py")


def race(verb: str, stories: list[list[int]]) -> list[dict[str, Any]]:
    """One process for each list of stories; all begin together."""
    orders = [{"verb": verb, "stories": pks, "name": f"racer-{n}"} for n, pks in enumerate(stories)]
    return together(RACER, orders, timeout=100)


def test_eight_processes_start_two_hundred_stories_with_sixteen_agents_and_sixteen_are_granted():
    project = factories.project()
    for number in range(16):
        factories.coder(project, number)
    stories = [factories.story(project).pk for _ in range(200)]
    results = race("start", [stories[n:] + stories[:n] for n in range(0, 200, 25)])
    granted = [pk for result in results for pk in result["granted"]]
    assert len(granted) == len(set(granted)) == 16 == Session.objects.count()
    live = Session.objects.values_list("agent_id", "story_id")
    assert (
        max(Counter(agent for agent, _ in live).values())
        == 1
        == max(Counter(story for _, story in live).values())
    )
    assert sum(int(r["waits"]) for r in results) == 184
    assert sum(int(r["refused"]) for r in results) == 8 * 200 - 200
    assert (
        StageChange.objects.filter(verb="start").count()
        == 200
        == Story.objects.filter(stage="coding").count()
    )


def test_a_limit_of_ten_is_exact_with_eight_processes():
    project = factories.project()
    factories.capacity(10)
    for number in range(16):
        factories.coder(project, number)
    stories = [factories.story(project).pk for _ in range(40)]
    results = race("start", [stories[n::8] for n in range(8)])
    assert sum(len(r["granted"]) for r in results) == 10 == Session.objects.live().count()


def test_a_limit_of_ten_is_exact_when_passes_and_starts_race():
    """Four processes pass over the stories that wait, several claims in a transaction, while four start others."""
    project = factories.project()
    factories.capacity(10)
    for number in range(16):
        factories.coder(project, number)
    waiting = [factories.story(project).pk for _ in range(12)]
    Story.objects.filter(pk__in=waiting).update(stage="coding")
    others = [factories.story(project).pk for _ in range(12)]
    orders = [{"verb": "pass", "stories": waiting[:3], "name": f"pass-{n}"} for n in range(4)]
    orders += [{"verb": "start", "stories": others[n::4], "name": f"start-{n}"} for n in range(4)]
    results = together(RACER, orders, timeout=100)
    assert [r["errors"] for r in results] == [[]] * 8
    granted = sum(r["waits"] for r in results[:4]) + sum(len(r["granted"]) for r in results[4:])
    assert granted == 10 == Session.objects.live().count()
    assert len(set(Session.objects.values_list("agent", flat=True))) == 10


def test_eight_processes_start_one_story_and_one_wins():
    project = factories.project()
    factories.coder(project, 1)
    factories.coder(project, 2)
    story = factories.story(project).pk
    results = race("start", [[story]] * 8)
    assert sum(len(r["granted"]) for r in results) == 1
    assert sum(int(r["refused"]) for r in results) == 7


def test_eight_processes_move_one_story_and_one_wins_with_one_history_row():
    story = factories.story(factories.project())
    results = race("archive", [[story.pk]] * 8)
    assert sum(len(r["granted"]) for r in results) == 1
    assert StageChange.objects.filter(verb="archive").count() == 1


def churn(claims: int, seed: int, *, processes: int = 3, timeout: float = 100) -> Counter[str]:
    """Claims and ends without a pause, under limits of the server, role, model and persons that change meanwhile. Returns what was done."""
    project = factories.project()
    factories.capacity(12)
    for number in range(14):
        factories.coder(project, number, model="large" if number % 2 else "small")
    for scope, subject, most in (("role", "coder", 11), ("model", "large", 5), ("user", "", 4)):
        Limit.objects.create(scope=scope, subject=subject, most=most)
    persons = [User.objects.create(username=name) for name in ("anna", "ben", "carl", "dora")]
    stories = [factories.story(project).pk for _ in range(30)]
    for number, pk in enumerate(stories):
        Story.objects.filter(pk=pk).update(asked_by=persons[number % 4])
        with transaction.atomic():
            moves.move(Story.objects.get(pk=pk), "start", actor=factories.ALICE)
    orders = [{"claims": claims // processes, "seed": seed + n, "stories": stories} for n in range(processes)]
    results = together(CHURNER, orders, timeout)
    assert [r.pop("violations") for r in results] == [[]] * processes
    done = sum((Counter({name: n for name, n in r.items() if name != "errors"}) for r in results), Counter())
    at_any_instant_one_holder()
    assert done["claims"] == Session.objects.count() == StageChange.objects.filter(verb="claim").count()
    return done


def at_any_instant_one_holder() -> None:
    """From the history, in its order: whoever was granted an agent or a story was its only holder until the end was written."""
    sessions = {
        pk: (agent, story) for pk, agent, story in Session.objects.values_list("pk", "agent_id", "story_id")
    }
    holders: set[tuple[str, int]] = set()
    rows = (
        StageChange.objects.filter(verb__in=["claim", "session_ended"])
        .order_by("pk")
        .values_list("verb", "why")
    )
    for verb, why in rows:
        found = re.search(r"session (\d+)", why)
        assert found is not None, why
        agent, story = sessions[int(found[1])]
        held = {("agent", agent), ("story", story)}
        if verb == "claim":
            assert not holders & held, f"session {found[1]} was granted what is held: {holders & held}"
            holders |= held
        else:
            holders -= held


def test_claims_ends_stops_and_changing_limits_at_once_never_grant_too_much(seed):
    done = churn(150, seed)
    assert done["claims"] >= 150 and done["limits"] > 0 < done["stops"]


@pytest.mark.long
@pytest.mark.timeout(15000)
def test_a_hundred_thousand_claims_grant_nothing_twice_and_nothing_too_much(seed):
    done = churn(100_000, seed, processes=4, timeout=14000)
    assert done["claims"] >= 100_000
    print(dict(done))
