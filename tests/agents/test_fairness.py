"""Who goes first, on a simulated clock: nobody waits for ever, and nobody's stories push everybody else's aside."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from agents.exceptions import ordinal
from agents.models import Session
from agents.services import assigning, pool
from agents.services.fairness import AGEING, Claimant, Served, rank
from pipeline.actors import Actor
from pipeline.models import Story
from pipeline.roles import Role
from tests import factories
from tests.factories import ALICE

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def simulate(arrivals: list[tuple[float, int, int]], ticks: int, period: timedelta) -> dict[int, float]:
    """One agent that takes one story each `period`. `arrivals`: (at tick, priority, person). Story -> the tick it was served at."""
    served, taken = Served({}, {}), {}
    for tick in range(ticks):
        now = BEGIN + tick * period
        waiting = [
            Claimant(n, n, 1, person, priority, BEGIN + at * period)
            for n, (at, priority, person) in enumerate(arrivals, 1)
            if at <= tick and n not in taken
        ]
        if waiting:
            first = min(waiting, key=lambda each: rank(each, served, now))
            taken[first.story] = tick
            served.serve(first)
    return taken


def test_a_low_story_waits_no_longer_than_the_bound_under_an_endless_stream_of_high_ones():
    """One more urgent story arrives with each service. After (10 - 0) ageing periods the low one is as urgent, and older: it is next."""
    period = AGEING / 2
    arrivals = [(0, 0, 1), *((tick, 10, 2) for tick in range(60))]
    assert simulate(arrivals, 60, period)[1] <= 10 * 2 + 1


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(-3, 3), st.integers(1, 4)), min_size=1, max_size=25)
)
def test_every_story_is_served_within_its_bound(arrivals):
    taken = simulate(arrivals, 60, AGEING)
    highest = max(priority for _, priority, _ in arrivals)
    for number, (at, priority, _) in enumerate(arrivals, 1):
        bound = at + (highest - priority) + len(arrivals)
        assert taken[number] <= bound


def test_of_equal_stories_the_person_served_longest_ago_goes_first():
    arrivals = [(0, 0, 1)] * 6 + [(0, 0, 2)] * 2
    taken = simulate(arrivals, 8, AGEING / 100)
    assert sorted(taken, key=taken.__getitem__) == [1, 7, 2, 8, 3, 4, 5, 6]


def test_then_the_project_then_the_number():
    now, served = BEGIN, Served({}, {1: 5, 2: 3})
    rows = [Claimant(n, n, project, None, 0, BEGIN) for n, project in ((1, 1), (2, 1), (3, 2))]
    assert [c.story for c in sorted(rows, key=lambda c: rank(c, served, now))] == [3, 1, 2]


@pytest.mark.parametrize(
    ("number", "word"),
    [(1, "first"), (3, "third"), (11, "11th"), (12, "12th"), (21, "21st"), (22, "22nd"), (103, "103rd")],
)
def test_places_are_named(number, word):
    assert ordinal(number) == word


@pytest.mark.django_db
def test_the_pool_serves_persons_in_turn_and_says_each_ones_place():
    project = factories.project()
    factories.coder(project)
    anna, ben = (Actor.of(factories.person(name, project, Role.DEVELOPER)) for name in ("anna", "ben"))
    stories = [factories.story(project, f"{n}") for n in range(5)]
    for story, who in zip(stories, (anna, anna, anna, ben, ben), strict=True):
        pool.start_story(story, actor=who)
    assigning.auto_assign()
    said = dict(Story.objects.values_list("number", "waiting_for"))
    assert said[4] == "1 of 1 coders busy; coder-1 has been on #1 for less than a minute"
    assert said[2] == "1 of 1 coders busy, third in line; coder-1 has been on #1 for less than a minute"
    order = [1]
    for _ in range(4):
        live = Session.objects.live().get()
        Story.objects.filter(pk=live.story_id).update(stage="qa", qa="human")
        Session.objects.filter(pk=live.pk).update(state="ended", outcome="done")
        assert assigning.auto_assign() == 1
        order.append(Session.objects.live().get().story.number)
    assert order == [1, 4, 2, 5, 3]


@pytest.mark.django_db
def test_a_stuck_story_never_starves_a_later_one():
    project = factories.project()
    factories.coder(project, 1, paused_for="its model is unknown")
    factories.coder(project, 2)
    stuck = factories.story(project, preferred_agent="coder-1")
    Story.objects.filter(pk=stuck.pk).update(priority=5)
    pool.start_story(stuck, actor=ALICE)
    assert pool.start_story(factories.story(project), actor=ALICE).session is not None
    stuck.refresh_from_db()
    assert "coder-1 is paused: its model is unknown" in stuck.waiting_for


@pytest.mark.django_db
def test_a_pass_with_nothing_to_do_is_cheap_and_changes_nothing(django_assert_max_num_queries):
    project = factories.project()
    factories.coder(project)
    for n in range(30):
        pool.start_story(factories.story(project, f"{n}"), actor=ALICE)
    assigning.auto_assign()
    before = list(Story.objects.values())
    with django_assert_max_num_queries(16):
        assert assigning.auto_assign() == 0
    assert list(Story.objects.values()) == before


@pytest.mark.django_db
def test_after_its_minutes_any_agent_may_take_a_pinned_story():
    project = factories.project()
    factories.coder(project, 1)
    pool.start_story(factories.story(project), actor=ALICE)
    factories.coder(project, 2)
    story = factories.story(project, preferred_agent="coder-1")
    Story.objects.filter(pk=story.pk).update(any_agent_after=10)
    pool.start_story(story, actor=ALICE)
    assert assigning.auto_assign() == 0
    Story.objects.filter(pk=story.pk).update(waiting_since=timezone.now() - timedelta(minutes=11))
    assert assigning.auto_assign() == 1
    assert story.sessions.get().agent.name == "coder-2"


@pytest.mark.django_db
def test_a_silent_host_is_named_beside_what_waits_for_it():
    project = factories.project()
    factories.coder(project)
    pool.start_story(factories.story(project), actor=ALICE)
    Session.objects.update(host="box-2", suspect_since=BEGIN)
    queued = pool.start_story(factories.story(project), actor=ALICE).queued
    assert queued.endswith("less than a minute (nothing is heard of its host box-2 since 00:00 UTC)")
