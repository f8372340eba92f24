"""The seed's 21 rules of a start, one test each, named by its rule (original-huskies.md 2.5). Those of its mutex are kept as rows."""

import pytest
from django.db import transaction

from agents.exceptions import (
    AgentBusy,
    AlreadyOnIt,
    NoCoder,
    NoSuchAgent,
    ProjectUnusable,
    RoleTaken,
    WrongStage,
)
from agents.models import Agent, Session
from agents.services import assigning, pool, sessions
from pipeline.models import Event, Process, StageChange, Story
from pipeline.services import processes
from tests import factories
from tests.factories import ALICE

pytestmark = pytest.mark.django_db


def agent(project, name, role, **values):
    return factories.coder(project, 9, name=name, role=role, **values)


def put(story, **values):
    Story.objects.filter(pk=story.pk).update(**values)
    story.refresh_from_db()
    return story


def nothing_is_left_of_it(story, stage):
    story.refresh_from_db()
    assert (story.stage, story.fence) == (stage, 0)
    assert (
        not Session.objects.filter(story=story).exists() and not Process.objects.filter(story=story).exists()
    )


@pytest.fixture
def project():
    row = factories.project()
    factories.coder(row)
    return row


def test_rule_01_a_project_that_cannot_be_read_is_the_result(project):
    story = factories.story(project)
    type(project).objects.update(state="refused", reason="Its repository is gone.")
    project.refresh_from_db()
    story.project = project
    with pytest.raises(ProjectUnusable, match=r"web cannot be worked on: Its repository is gone\."):
        pool.start_story(story, actor=ALICE)
    nothing_is_left_of_it(story, "backlog")


def test_rule_02_a_named_agent_must_exist_before_any_side_effect(project):
    story = factories.story(project)
    with pytest.raises(NoSuchAgent, match=r"no agent 'coder-7'\. Its agents: coder-1"):
        pool.start_story(story, actor=ALICE, agent_name="coder-7")
    nothing_is_left_of_it(story, "backlog")


def test_rule_03_what_a_session_needs_is_made_in_the_claim(project):
    """Its log, its events and its number are one row, made in the transaction that grants it."""
    session = pool.start_story(factories.story(project), actor=ALICE).session
    assert session.process.key == session.key and session.process.state == "prepared"
    assert session.fence == session.process.fence == 1 and session.conversation


def test_rule_04_a_restart_has_news_of_its_own(project):
    """Each session says up to which event it was told; a later one begins from there."""
    assert {field.name for field in Session._meta.fields} >= {"news_upto"}
    session = pool.start_story(factories.story(project), actor=ALICE).session
    session.refresh_from_db()
    assert session.news_upto <= Event.objects.filter(project=project).latest("number").number


def test_rule_05_a_coder_moves_the_story_before_availability_is_looked_at(project):
    factories.capacity(0)
    story = factories.story(project)
    assert "server is at its limit: 0 of 0" in pool.start_story(story, actor=ALICE).queued
    nothing_is_left_of_it(story, "coding")


@pytest.mark.parametrize(
    ("role", "stage"),
    [("qa", "qa"), ("mergemaster", "merge"), ("mergemaster", "merge_failure"), ("other", "coding")],
)
def test_rule_05_agents_of_other_roles_attach_where_the_story_is(project, role, stage):
    agent(project, "helper", role)
    story = put(
        factories.story(project), stage=stage, reason="It does not merge." if stage == "merge_failure" else ""
    )
    session = pool.start_story(story, actor=ALICE, agent_name="helper").session
    story.refresh_from_db()
    assert (session.role, story.stage) == (role, stage)
    assert (
        not StageChange.objects.filter(story=story)
        .exclude(from_stage="")
        .exclude(verb__in=["create", "claim"])
        .exists()
    )


@pytest.mark.parametrize(
    ("role", "stage"),
    [
        ("coder", "qa"),
        ("coder", "merge"),
        ("qa", "coding"),
        ("qa", "backlog"),
        ("mergemaster", "coding"),
        ("qa", "merge"),
        ("other", "archived"),
    ],
)
def test_rule_06_the_role_must_fit_the_stage(project, role, stage):
    agent(project, "helper", role)
    story = put(factories.story(project), stage=stage)
    with pytest.raises(
        WrongStage, match=r"helper is a .* agent, and those start on stories in .*: story web/1 is in"
    ):
        pool.start_story(story, actor=ALICE, agent_name="helper")
    nothing_is_left_of_it(story, stage)


def test_rule_07_a_preference_counts_only_without_an_explicit_name(project):
    factories.coder(project, 2)
    story = factories.story(project, preferred_agent="coder-2")
    assert pool.start_story(story, actor=ALICE, agent_name="coder-1").session.agent.name == "coder-1"


def test_rule_08_name_availability_and_grant_are_one_transaction(project):
    """Nothing is granted outside the lock: a claim that is rolled back leaves no session, no process and no move."""
    story = factories.story(project)
    with pytest.raises(RuntimeError), transaction.atomic():
        pool.start_story(story, actor=ALICE)
        raise RuntimeError
    nothing_is_left_of_it(story, "backlog")


def test_rule_08a_an_explicit_name_is_that_agent(project):
    factories.coder(project, 2)
    story = factories.story(project)
    assert pool.start_story(story, actor=ALICE, agent_name="coder-2").session.agent.name == "coder-2"


def test_rule_08b_a_preferred_agent_that_is_busy_is_waited_for(project):
    factories.coder(project, 2)
    pool.start_story(factories.story(project), actor=ALICE, agent_name="coder-1")
    story = factories.story(project, preferred_agent="coder-1")
    assert "its agent coder-1 has been on #1" in pool.start_story(story, actor=ALICE).queued
    nothing_is_left_of_it(story, "coding")
    assert assigning.auto_assign() == 0


@pytest.mark.parametrize("preferred", ["nobody", "qa-1"])
def test_rule_08c_a_preference_that_is_no_coder_is_ignored(project, preferred):
    agent(project, "qa-1", "qa")
    story = factories.story(project, preferred_agent=preferred)
    assert pool.start_story(story, actor=ALICE).session.agent.name == "coder-1"


def test_rule_08d_without_a_preference_the_first_free_coder_in_the_files_order(project):
    factories.coder(project, 2)
    factories.coder(project, 3)
    names = [pool.start_story(factories.story(project), actor=ALICE).session.agent.name for _ in range(3)]
    assert names == ["coder-1", "coder-2", "coder-3"]


def test_rule_08e_with_none_free_the_story_is_queued(project):
    pool.start_story(factories.story(project), actor=ALICE)
    story = factories.story(project)
    assert "1 of 1 coders busy" in pool.start_story(story, actor=ALICE).queued
    nothing_is_left_of_it(story, "coding")


def test_rule_08f_without_any_coder_it_is_refused_and_nothing_moves():
    project = factories.project()
    agent(project, "qa-1", "qa")
    story = factories.story(project)
    with pytest.raises(
        NoCoder,
        match="web has no coder agent; name one in its project file, or start the story with an agent by name",
    ):
        pool.start_story(story, actor=ALICE)
    nothing_is_left_of_it(story, "backlog")


def test_rule_09_the_same_agent_twice_on_one_story_is_refused_with_its_state(project):
    story = factories.story(project)
    session = pool.start_story(story, actor=ALICE).session
    with pytest.raises(
        AlreadyOnIt, match=rf"already being worked on by coder-1 \(session {session.pk}, queued\)"
    ):
        pool.start_story(story, actor=ALICE, agent_name="coder-1")
    Session.objects.update(state="ended", outcome="crashed")
    assert assigning.auto_assign() == 1, "an ended session is no duplicate"


def test_rule_10_two_agents_of_one_role_never_share_a_story(project):
    factories.coder(project, 2)
    story = factories.story(project)
    pool.start_story(story, actor=ALICE, agent_name="coder-1")
    with pytest.raises(RoleTaken, match=r"already being worked on by coder-1 .*; coder-2 cannot join it"):
        pool.start_story(story, actor=ALICE, agent_name="coder-2")
    with pytest.raises(RoleTaken, match="by coder-1"):
        pool.start_story(story, actor=ALICE)
    assert Session.objects.count() == 1


def test_rule_10_comes_before_8b_and_8e(project):
    """All coders are busy, one of them with this very story: refused, not queued."""
    story = factories.story(project, preferred_agent="coder-1")
    pool.start_story(story, actor=ALICE)
    with pytest.raises(RoleTaken):
        pool.start_story(story, actor=ALICE)


def test_rule_11_a_named_agent_on_another_story_takes_this_one_when_it_is_free(project):
    first, story = factories.story(project), factories.story(project)
    pool.start_story(first, actor=ALICE)
    assert "coder-1 has been on #1" in pool.start_story(story, actor=ALICE, agent_name="coder-1").queued
    nothing_is_left_of_it(story, "coding")
    Session.objects.update(state="ended", outcome="done")
    put(first, stage="qa")
    assert assigning.auto_assign() == 1 and Session.objects.live().get().story == story


def test_rule_11_a_busy_qa_agent_is_refused_and_not_waited_for(project):
    agent(project, "qa-1", "qa")
    first, story = (put(factories.story(project), stage="qa") for _ in range(2))
    pool.start_story(first, actor=ALICE, agent_name="qa-1")
    with pytest.raises(AgentBusy, match="qa-1 cannot take story web/2 now: its agent qa-1 has been on #1"):
        pool.start_story(story, actor=ALICE, agent_name="qa-1")
    nothing_is_left_of_it(story, "qa")


def test_rule_13_the_entry_is_queued_first(project):
    assert pool.start_story(factories.story(project), actor=ALICE).session.state == "queued"


def test_rule_14_a_launch_that_fails_frees_the_claim_without_a_charge(project):
    """The seed's guard: here the process row is ended as not launched, and the sweep starts the story anew."""
    story = factories.story(project)
    session = pool.start_story(story, actor=ALICE).session
    processes.reclaim(session.process, "the fork failed")
    session.refresh_from_db()
    story.refresh_from_db()
    assert (session.state, session.outcome) == ("ended", "not_started")
    assert (story.retries, story.crashes, story.stage) == (0, 0, "coding")
    assert assigning.auto_assign() == 1


def test_rule_16_people_are_told_of_the_start(project):
    factories.person("nina")
    story = factories.story(project)
    pool.start_story(story, actor=ALICE)
    assert Event.objects.filter(story=story, text="alice started #1").exists()


def test_rule_17_the_inactivity_limit_is_the_agents_or_300_seconds(project, settings, tmp_path):
    settings.HUSKIES_HOME = tmp_path
    factories.coder(project, 2, entry={"script": [["say", "hi"]], "inactivity_timeout": 7.0})
    for name, seconds in (("coder-1", 300.0), ("coder-2", 7.0)):
        session = pool.start_story(factories.story(project), actor=ALICE, agent_name=name).session
        assert session.entry.get("inactivity_timeout") or 300.0 == seconds


def test_rule_18_a_change_of_model_is_a_new_conversation(project):
    story = factories.story(project)
    Agent.objects.update(model="one")
    first = pool.start_story(story, actor=ALICE).session
    end = {
        "state": "ended",
        "outcome": "crashed",
        "told": {"kind": "crashed"},
        "started_at": first.created_at,
    }
    Session.objects.update(**end)
    coder = Agent.objects.get()
    assert sessions.conversation_to_resume(story, coder).pk == first.pk
    coder.model = "two"
    assert sessions.conversation_to_resume(story, coder) is None


def test_rule_19_start_returns_before_anything_runs(project, settings, tmp_path):
    settings.HUSKIES_HOME = tmp_path
    session = pool.start_story(factories.story(project), actor=ALICE).session
    assert session.process.pid is None and not list(tmp_path.glob("copies/*"))


def test_rule_20_a_stop_between_claim_and_launch_wins(project):
    story = factories.story(project)
    session = pool.start_story(story, actor=ALICE).session
    pool.stop_story(story, actor=ALICE)
    session.refresh_from_db()
    assert (session.state, session.outcome) == ("ended", "stopped")
    assert processes.launch(session.process_id) is False


def test_rule_21_the_answer_is_the_queued_session(project):
    started = pool.start_story(factories.story(project), actor=ALICE)
    assert (started.session.state, started.session.started_at, started.queued) == ("queued", None, "")


def test_two_coders_on_two_stories_both_succeed(project):
    factories.coder(project, 2)
    pair = [pool.start_story(factories.story(project), actor=ALICE).session for _ in range(2)]
    assert len({s.agent_id for s in pair}) == 2


def test_one_that_looks_on_does_not_make_the_coders_work_stale(project):
    agent(project, "supervisor", "other")
    story = factories.story(project)
    session = pool.start_story(story, actor=ALICE).session
    watcher = pool.start_story(story, actor=ALICE, agent_name="supervisor").session
    story.refresh_from_db()
    assert session.fence == story.fence == watcher.fence
