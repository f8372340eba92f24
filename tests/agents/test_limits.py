"""Each level's limit holds back the next start and names itself; changing one kills nothing."""

import pytest

from agents.models import Agent, Limit, Session
from agents.services import assigning, limiting, pool
from pipeline import conf
from pipeline.actors import Actor
from pipeline.models import Capacity, Host, Story
from pipeline.roles import Role
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    row = factories.project()
    for number in (1, 2, 3):
        factories.coder(row, number, model="large")
    return row


@pytest.fixture
def anna(project):
    return Actor.of(factories.person("anna", project, Role.OPERATOR))


def subject(scope, project, anna):
    return {
        "host": conf.host(),
        "project": project.pk,
        "user": anna.user.pk,
        "role": "coder",
        "model": "large",
    }.get(scope, "")


SENTENCES = {
    "server": "the server is at its limit: 2 of 2 agents are at work",
    "host": f"host {conf.host()} is at its limit: 2 of 2",
    "project": "project web is at its limit: 2 of 2",
    "user": "anna is at their limit: 2 of 2",
    "role": "the role coder is at its limit: 2 of 2",
    "model": "the model large is at its limit: 2 of 2 agents use it",
}


@pytest.mark.parametrize("scope", SENTENCES)
@pytest.mark.parametrize("each", [False, True])
def test_a_limit_holds_at_its_level(scope, each, project, anna):
    Limit.objects.update_or_create(
        scope=scope, subject="" if each else str(subject(scope, project, anna)), defaults={"most": 2}
    )
    stories = [factories.story(project) for _ in range(3)]
    queued = [pool.start_story(story, actor=anna).queued for story in stories]
    assert queued[:2] == ["", ""] and SENTENCES[scope] in queued[2]
    assert Session.objects.live().count() == 2 and assigning.auto_assign() == 0
    Limit.objects.filter(scope=scope).update(most=1)
    assert Session.objects.live().count() == 2, "a lowered limit kills nothing"
    Limit.objects.filter(scope=scope).update(most=3)
    assert assigning.auto_assign() == 1


def test_an_own_row_goes_before_the_one_for_each(project, anna):
    Limit.objects.create(scope="user", subject="", most=0)
    Limit.objects.create(scope="user", subject=str(anna.user.pk), most=1)
    assert pool.start_story(factories.story(project), actor=anna).session is not None


def test_a_hosts_limit_that_is_set_by_its_name_holds(project, anna):
    Host.objects.update_or_create(name=conf.host())
    limiting.set_limit("host", conf.host(), 1, actor=factories.ALICE)
    assert pool.start_story(factories.story(project), actor=anna).session is not None
    assert (
        SENTENCES["host"].replace("2 of 2", "1 of 1")
        in pool.start_story(factories.story(project), actor=anna).queued
    )


def test_another_persons_sessions_do_not_count(project, anna):
    ben = Actor.of(factories.person("ben", project, Role.DEVELOPER))
    Limit.objects.create(scope="user", subject="", most=1)
    assert pool.start_story(factories.story(project), actor=anna).session is not None
    assert pool.start_story(factories.story(project), actor=ben).session is not None
    assert "ben is at their limit" in pool.start_story(factories.story(project), actor=ben).queued


def test_without_who_pressed_start_it_counts_for_the_storys_owner(project, anna):
    story = factories.story(project)
    Story.objects.filter(pk=story.pk).update(owner=anna.user)
    assert pool.start_story(story, actor=factories.ALICE).session.started_by == anna.user


def test_an_agent_with_the_limit_nought_takes_nothing(project, anna):
    Limit.objects.create(scope="agent", subject=str(Agent.objects.get(name="coder-1").pk), most=0)
    assert pool.start_story(factories.story(project), actor=anna).session.agent.name == "coder-2"
    story = factories.story(project, preferred_agent="coder-1")
    assert "coder-1 is at its limit: it may take nothing (0)" in pool.start_story(story, actor=anna).queued


def test_stories_that_await_a_person_hold_back_new_ones_but_not_begun_ones(project, anna):
    Limit.objects.create(scope="review", subject=str(project.pk), most=1)
    waiting = factories.story(project)
    Story.objects.filter(pk=waiting.pk).update(stage="qa")
    new = pool.start_story(factories.story(project), actor=anna)
    assert "1 stories of project web await a person's review (its limit is 1)" in new.queued
    begun = factories.story(project)
    Story.objects.filter(pk=begun.pk).update(tip="1" * 40)
    assert pool.start_story(begun, actor=anna).session is not None
    Story.objects.filter(pk=waiting.pk).update(stage="done", landed="1" * 40)
    assert assigning.auto_assign() == 1


def test_a_draining_server_or_host_takes_nothing_new(project, anna):
    Capacity.objects.update(draining=True)
    story = factories.story(project)
    assert "the server is draining" in pool.start_story(story, actor=anna).queued
    Capacity.objects.update(draining=False)
    Host.objects.update_or_create(name=conf.host(), defaults={"draining": True})
    assert assigning.auto_assign() == 0
    Host.objects.update(draining=False)
    assert assigning.auto_assign() == 1
