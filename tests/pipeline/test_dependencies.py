"""What depends on what: edges without circles, stories that start by themselves once, and never against a person."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from pipeline import moves
from pipeline.actors import SERVER, Actor
from pipeline.exceptions import BadInput, NotAllowed
from pipeline.models import Dependency, Project, StageChange, Story
from pipeline.roles import Role
from pipeline.services import dependencies
from pipeline.services.dependencies import promote, set_dependencies, unmet
from pipeline.services.stories import create_story, edit_story, perform
from pipeline.shapes import story as shape
from tests import factories
from tests.factories import ALICE

pytestmark = pytest.mark.django_db


@pytest.fixture
def web() -> Project:
    return factories.project()


def done(story: Story) -> None:
    """It landed, as the server says it."""
    Story.objects.filter(pk=story.pk).update(stage="merge")
    story.refresh_from_db()
    with transaction.atomic():
        moves.move(story, "land", actor=SERVER, landed="2" * 40)


def fresh(story: Story) -> Story:
    return Story.objects.get(pk=story.pk)


def test_a_story_waits_for_its_numbers_and_says_so(web: Project):
    one, two, three = (factories.story(web) for _ in range(3))
    assert set_dependencies(three, [2, 1, 2], actor=ALICE) == [1, 2]
    assert unmet([one.pk, two.pk, three.pk]) == {three.pk: ["#1", "#2"]}
    assert fresh(three).waiting_for == "it starts by itself when #1 and #2 are done or archived"
    assert shape(three)["depends_on"] == [1, 2]
    assert list(StageChange.objects.filter(verb="depends").values_list("why", flat=True)) == ["on #1 and #2"]
    set_dependencies(three, [2], actor=ALICE)
    assert unmet([three.pk]) == {three.pk: ["#2"]}
    set_dependencies(three, [], actor=ALICE)
    assert (unmet([three.pk]), fresh(three).waiting_for, fresh(three).stage) == ({}, "", "backlog")


def test_the_same_numbers_again_change_nothing(web: Project):
    factories.story(web)
    two = factories.story(web, depends_on=[1])
    set_dependencies(two, [1], actor=ALICE)
    assert StageChange.objects.filter(verb="depends").count() == 1


@pytest.mark.parametrize(
    ("numbers", "said"),
    [([3], "on itself"), ([9], "no such story"), (list(range(4, 105)), "100 stories at most")],
)
def test_what_cannot_be_waited_for_is_refused_by_name(web: Project, numbers: list[int], said: str):
    for _ in range(3):
        factories.story(web)
    with pytest.raises(BadInput, match=said):
        set_dependencies(Story.objects.get(number=3), numbers, actor=ALICE)
    assert not Dependency.objects.exists()


def test_a_story_of_another_project_cannot_be_waited_for(web: Project):
    factories.story(factories.project("other"), depends_on=[])
    other = factories.project("third")
    factories.story(other)
    factories.story(other)
    with pytest.raises(BadInput, match="project web has no such story"):
        set_dependencies(factories.story(web), [2], actor=ALICE)


def test_a_circle_is_refused_and_named(web: Project):
    for _ in range(3):
        factories.story(web)
    one, two, three = Story.objects.order_by("number")
    set_dependencies(one, [2], actor=ALICE)
    set_dependencies(two, [3], actor=ALICE)
    with pytest.raises(BadInput, match="#3 -> #1 -> #2 -> #3"):
        set_dependencies(three, [1], actor=ALICE)
    with pytest.raises(BadInput, match="#2 -> #1 -> #2"):
        edit_story(two, actor=ALICE, depends_on=[3, 1], title="Not kept")
    assert (fresh(two).title, unmet([two.pk])) == ("Add a button", {two.pk: ["#3"]})


def test_a_viewer_may_not_change_what_a_story_waits_for(web: Project):
    factories.story(web)
    viewer = Actor.of(factories.person("vera", web, Role.VIEWER))
    with pytest.raises(NotAllowed):
        set_dependencies(factories.story(web), [1], actor=viewer)


def test_a_new_story_takes_dependencies_and_a_wrong_one_makes_none(web: Project):
    factories.story(web)
    two = create_story(web, title="Second", actor=ALICE, depends_on=[1], priority=5, any_agent_after=10)
    assert (unmet([two.pk]), two.priority, two.any_agent_after) == ({two.pk: ["#1"]}, 5, 10)
    with pytest.raises(BadInput, match="on itself"):
        create_story(web, title="Third", actor=ALICE, depends_on=[3])
    assert factories.story(web).number == 3


def test_an_edit_changes_priority_and_patience_and_nothing_that_is_not_given(web: Project):
    one = factories.story(web, any_agent_after=5)
    edit_story(one, actor=ALICE, priority=-3)
    assert (fresh(one).priority, fresh(one).any_agent_after) == (-3, 5)
    edit_story(one, actor=ALICE, any_agent_after=None)
    assert (fresh(one).priority, fresh(one).any_agent_after) == (-3, None)
    with pytest.raises(BadInput, match="priority"):
        edit_story(one, actor=ALICE, priority=10**6)


def test_a_story_starts_once_when_the_last_one_is_done(web: Project):
    one, two = factories.story(web), factories.story(web)
    three = factories.story(web, depends_on=[1, 2])
    done(one)
    assert promote(web.pk) == 0 and fresh(three).stage == "backlog"
    assert fresh(three).waiting_for == "it starts by itself when #2 is done or archived"
    done(two)
    assert promote(web.pk) == 1
    after = fresh(three)
    assert (after.stage, after.waiting_for) == ("coding", "") and after.waiting_since is not None
    assert promote(web.pk) == 0
    move = StageChange.objects.get(story=three, verb="deps_met")
    assert (move.actor, move.why) == ("server", "#1 and #2 are done")


def test_a_story_without_dependencies_is_never_started_by_itself(web: Project):
    one = factories.story(web)
    done(factories.story(web))
    assert promote(web.pk) == 0 and fresh(one).stage == "backlog"


def test_one_that_was_archived_unfinished_counts_with_a_warning(web: Project):
    one = factories.story(web)
    two = factories.story(web, depends_on=[1])
    perform(one, "archive", actor=ALICE)
    assert promote(web.pk) == 1
    why = StageChange.objects.get(story=two, verb="deps_met").why
    assert why.startswith("warning: #1 was archived without having landed")


def test_one_that_was_done_before_the_story_was_written_counts_at_once(web: Project):
    one = factories.story(web)
    done(one)
    assert factories.story(web, depends_on=[1]).stage == "coding"


@pytest.mark.parametrize("verb", ["hold", "freeze"])
def test_a_held_or_frozen_story_is_left_alone(web: Project, verb: str):
    one = factories.story(web)
    two = perform(factories.story(web, depends_on=[1]), verb, actor=ALICE)
    done(one)
    assert promote(web.pk) == 0 and fresh(two).stage == "backlog"


def test_what_a_person_parked_after_all_was_met_waits_for_a_person(web: Project):
    one, _ = factories.story(web), factories.story(web)
    three = factories.story(web, depends_on=[1])
    done(one)
    promote(web.pk)
    perform(fresh(three), "park", actor=ALICE)
    assert promote(web.pk) == 0
    assert fresh(three).waiting_for == dependencies.ITS_TURN
    set_dependencies(fresh(three), [1, 2], actor=ALICE)
    done(Story.objects.get(number=2))
    assert promote(web.pk) == 1 and fresh(three).stage == "coding"


def test_what_was_parked_before_all_was_met_starts_then(web: Project):
    one = factories.story(web)
    two = factories.story(web)
    with transaction.atomic():
        moves.move(two, "start", actor=ALICE)
    set_dependencies(two, [1], actor=ALICE)
    perform(fresh(two), "park", actor=ALICE)
    assert promote(web.pk) == 0
    done(one)
    assert promote(web.pk) == 1


def test_what_was_blocked_in_the_backlog_starts_when_it_is_unblocked(web: Project):
    one = factories.story(web)
    two = perform(factories.story(web, depends_on=[1]), "block", actor=ALICE, why="wait")
    done(one)
    assert promote(web.pk) == 0
    perform(two, "unblock", actor=ALICE)
    assert promote(web.pk) == 1


def test_reopening_takes_nothing_back(web: Project):
    one = factories.story(web)
    two = factories.story(web, depends_on=[1])
    done(one)
    promote(web.pk)
    perform(fresh(one), "reopen", actor=ALICE, why="more")
    assert promote(web.pk) == 0
    assert (fresh(two).stage, unmet([two.pk])) == ("coding", {two.pk: ["#1"]})


def test_a_look_with_nothing_to_do_is_one_query(web: Project):
    for _ in range(10):
        factories.story(web)
    for number in range(1, 10):
        factories.story(web, depends_on=[number])
    promote(web.pk)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert promote(web.pk) == 0
    assert len(queries) == 1
