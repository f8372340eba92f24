"""What `start` promises: claimed, or waiting with a true reason, or refused with a sentence; and nothing else is left behind."""

import pytest

from agents.exceptions import NoSuchAgent
from agents.models import Limit, Session
from agents.services import assigning, pool
from pipeline.actors import Actor
from pipeline.exceptions import AlreadyWaiting, AlreadyWorked, NotAllowed, NothingRunning, TransitionRefused
from pipeline.models import Process, StageChange
from pipeline.roles import Role
from pipeline.services.stories import perform
from tests import factories
from tests.factories import ALICE

pytestmark = pytest.mark.django_db


def test_a_free_coder_is_claimed_and_the_story_is_in_coding():
    project = factories.project()
    coder = factories.coder(project)
    story = factories.story(project)
    started = pool.start_story(story, actor=ALICE)
    story.refresh_from_db()
    assert started.session is not None and started.queued == ""
    assert (started.session.agent, started.session.state, started.session.fence) == (coder, "queued", 1)
    assert (story.stage, story.fence, story.waiting_for) == ("coding", 1, "")
    assert Process.objects.get().key == started.session.key
    assert list(StageChange.objects.values_list("verb", flat=True)) == ["create", "start", "claim"]


def test_with_all_coders_busy_the_story_waits_in_coding_without_a_session():
    project = factories.project()
    factories.coder(project)
    first, second = factories.story(project), factories.story(project)
    pool.start_story(first, actor=ALICE)
    started = pool.start_story(second, actor=ALICE)
    second.refresh_from_db()
    assert started.session is None
    assert "1 of 1 coders busy; coder-1 has been on #1" in started.queued
    assert (second.stage, second.waiting_for, second.fence) == ("coding", started.queued, 0)
    assert Session.objects.count() == 1 == Process.objects.count()


def test_a_story_that_is_worked_on_is_refused_before_anything_else_is_looked_at():
    project = factories.project()
    factories.coder(project)
    story = factories.story(project)
    pool.start_story(story, actor=ALICE)
    factories.capacity(0)
    with pytest.raises(AlreadyWorked, match=r"web/1 is already being worked on by coder-1"):
        pool.start_story(story, actor=ALICE)
    assert Session.objects.count() == 1


def test_a_story_that_waits_is_refused_with_what_it_waits_for():
    project = factories.project()
    factories.coder(project)
    pool.start_story(factories.story(project), actor=ALICE)
    story = factories.story(project)
    pool.start_story(story, actor=ALICE)
    with pytest.raises(AlreadyWaiting, match="coders busy"):
        pool.start_story(story, actor=ALICE)


def test_a_waiting_story_is_started_when_an_agent_is_free_lowest_number_first():
    project = factories.project()
    factories.coder(project)
    stories = [factories.story(project) for _ in range(3)]
    for story in stories:
        pool.start_story(story, actor=ALICE)
    Session.objects.update(state="ended", outcome="done")
    stories[0].stage = "qa"
    type(stories[0]).objects.filter(pk=stories[0].pk).update(stage="qa")
    assert assigning.auto_assign() == 1
    assert Session.objects.live().get().story_id == stories[1].pk
    assert assigning.auto_assign() == 0


@pytest.mark.parametrize(
    ("field", "sentence"),
    [("server", "server is at its limit: 1 of 1"), ("project", "project web is at its limit: 1 of 1")],
)
def test_a_limit_makes_the_next_story_wait_and_says_which(field, sentence):
    project = factories.project()
    factories.capacity(1 if field == "server" else 100)
    if field == "project":
        Limit.objects.create(scope="project", subject=str(project.pk), most=1)
    factories.coder(project, 1)
    factories.coder(project, 2)
    pool.start_story(factories.story(project), actor=ALICE)
    assert sentence in pool.start_story(factories.story(project), actor=ALICE).queued


def test_the_preferred_agent_is_waited_for_and_never_substituted():
    project = factories.project()
    factories.coder(project, 1)
    factories.coder(project, 2)
    pool.start_story(factories.story(project, preferred_agent="coder-1"), actor=ALICE)
    started = pool.start_story(factories.story(project, preferred_agent="coder-1"), actor=ALICE)
    assert started.queued.startswith("its agent coder-1 has been on #1")


def test_an_unknown_agent_is_refused_before_the_story_moves():
    project = factories.project()
    factories.coder(project)
    story = factories.story(project)
    with pytest.raises(NoSuchAgent, match="coder-1"):
        pool.start_story(story, actor=ALICE, agent_name="coder-9")
    story.refresh_from_db()
    assert story.stage == "backlog"


def test_a_stopped_story_is_held_until_someone_starts_it():
    project = factories.project()
    factories.coder(project)
    story = factories.story(project)
    session = pool.start_story(story, actor=ALICE).session
    assert session is not None
    pool.stop_story(story, actor=ALICE)
    story.refresh_from_db()
    session.refresh_from_db()
    assert (session.state, session.outcome) == ("ended", "stopped")
    assert (story.held_for, story.stage) == ("stopped by alice", "coding")
    assert assigning.auto_assign() == 0
    assert pool.start_story(story, actor=ALICE).session is not None


def test_a_reopened_story_begins_from_todays_base_and_not_from_its_old_work():
    project = factories.project()
    factories.coder(project)
    story = factories.story(project)
    pool.start_story(story, actor=ALICE)
    Session.objects.update(state="ended", outcome="done", saved="3" * 40, base="1" * 40)
    type(story).objects.filter(pk=story.pk).update(stage="done", landed="4" * 40, tip="3" * 40)
    type(project).objects.update(tip="4" * 40)
    story.refresh_from_db()
    perform(story, "reopen", actor=ALICE, why="one more thing")
    assert assigning.auto_assign() == 1
    session = Session.objects.live().get()
    assert (session.base, session.began_at_commit) == ("4" * 40, "")


def test_stop_with_nothing_running_is_refused_by_name():
    story = factories.story(factories.project())
    with pytest.raises(NothingRunning, match="web/1"):
        pool.stop_story(story, actor=ALICE)


def test_a_viewer_may_not_start_and_an_outsider_neither():
    project = factories.project()
    factories.coder(project)
    story = factories.story(project)
    for user in (factories.person("vera", project, Role.VIEWER), factories.person("otto")):
        with pytest.raises(NotAllowed, match=r"story\.start needs the role developer"):
            pool.start_story(story, actor=Actor.of(user))


@pytest.mark.parametrize("stage", ["qa", "merge", "done", "archived"])
def test_only_a_story_of_the_backlog_or_in_coding_is_started(stage):
    project = factories.project()
    factories.coder(project)
    story = factories.story(project)
    type(story).objects.filter(pk=story.pk).update(stage=stage, landed="2" * 40)
    with pytest.raises(TransitionRefused, match=f"is in {stage}"):
        pool.start_story(story, actor=ALICE)


def test_a_frozen_story_is_not_started_and_stays_where_it_is():
    project = factories.project()
    factories.coder(project)
    story = perform(factories.story(project), "freeze", actor=ALICE)
    with pytest.raises(TransitionRefused, match="unfreeze it first"):
        pool.start_story(story, actor=ALICE)
    story.refresh_from_db()
    assert story.stage == "backlog"
