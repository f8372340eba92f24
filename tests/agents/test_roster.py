"""Pausing, resuming, stopping and assigning agents: what holds afterwards, and who is in the history."""

from __future__ import annotations

import pytest

from agents.exceptions import NoSuchAgent
from agents.models import Agent, Session
from agents.receivers import sync_agents
from agents.services import assigning, faces, pool, roster
from agents.states import StopCause
from pipeline import conf
from pipeline.actors import Actor
from pipeline.exceptions import NotAllowed, NothingRunning, Refused, TransitionRefused
from pipeline.git.control import read_ref
from pipeline.models import Act, Event, Project, StageChange
from pipeline.projectfile import ProjectFile, registered_sections
from pipeline.roles import Role
from pipeline.services.stories import perform
from tests import factories
from tests.e2e.shop import Shop, wait_for
from tests.factories import ALICE


@pytest.fixture
def project(db: None) -> Project:
    return factories.project()


def test_a_paused_agent_takes_nothing_new_and_its_session_goes_on(project: Project) -> None:
    agent = factories.coder(project)
    started = pool.start_story(factories.story(project), actor=ALICE)
    roster.pause_agent(agent, actor=ALICE, why="it is tired")
    assert Session.objects.live().count() == 1 and started.session is not None
    Session.objects.update(state="ended", outcome="done")
    waiting = pool.start_story(factories.story(project), actor=ALICE)
    assert waiting.session is None and waiting.queued == "coder-1 is paused: it is tired"
    assert faces.of_agents(Agent.objects.all())[0].why == "Paused by alice: it is tired"
    roster.resume_agent(agent, actor=ALICE)
    assert assigning.auto_assign() == 1
    acts = list(Act.objects.values_list("actor", "verb", "subject", "why"))
    assert acts == [
        ("alice", "agent.pause", "agent web/coder-1", "it is tired"),
        ("alice", "agent.resume", "agent web/coder-1", "it was paused: it is tired"),
    ]
    assert Event.objects.filter(kind="agents").count() == 2


def test_a_persons_pause_survives_a_new_project_file_and_the_servers_does_not(project: Project) -> None:
    file = ProjectFile.default(registered_sections())
    sync_agents(None, project=project, file=file)
    ours, servers = Agent.objects.filter(project=project, role="coder")[:2]
    roster.pause_agent(ours, actor=ALICE, why="holiday")
    Agent.objects.filter(pk=servers.pk).update(paused_for="its model is unknown")
    sync_agents(None, project=project, file=file)
    ours.refresh_from_db()
    servers.refresh_from_db()
    assert (ours.paused_for, ours.paused_by, servers.paused_for) == ("holiday", "alice", "")


def test_a_second_pause_and_a_resume_of_nothing_are_refused(project: Project) -> None:
    agent = factories.coder(project)
    with pytest.raises(Refused, match="is not paused"):
        roster.resume_agent(agent, actor=ALICE)
    roster.pause_agent(agent, actor=ALICE)
    with pytest.raises(Refused, match="paused already, by alice: paused by alice"):
        roster.pause_agent(agent, actor=Actor("bob"))
    assert Act.objects.count() == 1


def test_the_servers_pause_becomes_a_persons(project: Project) -> None:
    agent = factories.coder(project, paused_for="its model is unknown")
    roster.pause_agent(agent, actor=ALICE, why="until the bill is paid")
    assert (agent.paused_for, agent.paused_by) == ("until the bill is paid", "alice")


def test_who_may_pause_and_assign(project: Project) -> None:
    agent, story = factories.coder(project), factories.story(project)
    viewer = Actor.of(factories.person("v", project, Role.VIEWER))
    developer = Actor.of(factories.person("d", project, Role.DEVELOPER))
    for who in (viewer, developer):
        with pytest.raises(NotAllowed, match="operator"):
            roster.pause_agent(agent, actor=who)
    with pytest.raises(NotAllowed):
        roster.assign(story, agent.name, actor=viewer)
    assert roster.assign(story, agent.name, actor=developer).session is not None


def test_an_assigned_story_starts_at_once_and_keeps_its_coder_for_a_later_start(project: Project) -> None:
    factories.coder(project)
    second = factories.coder(project, 2)
    story = factories.story(project)
    started = roster.assign(story, "coder-2", actor=ALICE)
    assert started.session is not None and started.session.agent == second
    pool.stop_story(story, actor=ALICE)
    Session.objects.update(state="ended", outcome="stopped")
    again = pool.start_story(story, actor=ALICE)
    assert again.session is not None and again.session.agent == second
    assert ("assign", "alice", "to coder-2") in StageChange.objects.values_list("verb", "actor", "why")


def test_assigning_stops_the_other_coder_and_raises_the_fence(project: Project) -> None:
    factories.coder(project)
    factories.coder(project, 2)
    story = factories.story(project)
    first = pool.start_story(story, actor=ALICE).session
    assert first is not None
    started = roster.assign(story, "coder-2", actor=Actor("bob"))
    first.refresh_from_db()
    story.refresh_from_db()
    assert started.session is None and started.queued == "coder-1 stops, then coder-2 goes on"
    assert (first.stop_requested_by, first.stop_cause) == ("bob", StopCause.PERSON)
    assert (story.preferred_agent, story.held_for, story.fence) == ("coder-2", "", first.fence + 1)


def test_assigning_to_the_coder_that_is_on_it_stops_nothing(project: Project) -> None:
    factories.coder(project)
    story = factories.story(project)
    first = pool.start_story(story, actor=ALICE).session
    assert roster.assign(story, "coder-1", actor=ALICE).session == first and first is not None
    first.refresh_from_db()
    story.refresh_from_db()
    assert (first.stop_requested_at, story.fence, story.preferred_agent) == (None, first.fence, "coder-1")


def test_an_unknown_agent_one_of_another_role_and_a_finished_story_are_refused(project: Project) -> None:
    factories.coder(project)
    story = factories.story(project)
    Agent.objects.create(project=project, name="looker", role="qa", runtime="scripted")
    with pytest.raises(NoSuchAgent, match=r"no agent 'nobody'. Its coders: coder-1"):
        roster.assign(story, "nobody", actor=ALICE)
    with pytest.raises(NoSuchAgent, match="looker is a QA agent"):
        roster.assign(story, "looker", actor=ALICE)
    perform(story, "archive", actor=ALICE)
    with pytest.raises(TransitionRefused, match="it is archived"):
        roster.assign(story, "coder-1", actor=ALICE)
    story.refresh_from_db()
    assert story.preferred_agent == ""


def test_a_story_that_cannot_start_now_keeps_the_wish(project: Project) -> None:
    factories.coder(project)
    story = factories.story(project)
    perform(story, "block", actor=ALICE, why="the design is open")
    started = roster.assign(story, "coder-1", actor=ALICE)
    story.refresh_from_db()
    assert started.session is None and "it is in blocked" in started.queued
    assert (story.preferred_agent, story.stage) == ("coder-1", "blocked")


def test_stopping_an_idle_agent_is_refused(project: Project) -> None:
    with pytest.raises(NothingRunning, match="Agent web/coder-1 runs nothing"):
        roster.stop_agent(factories.coder(project), actor=ALICE)


def test_who_only_looks_on_is_stopped_alone(project: Project) -> None:
    factories.coder(project)
    watcher = Agent.objects.create(project=project, name="watcher", role="other", runtime="scripted")
    story = factories.story(project)
    coding = pool.start_story(story, actor=ALICE).session
    pool.start_story(story, actor=ALICE, agent_name="watcher")
    assert coding is not None
    roster.stop_agent(watcher, actor=ALICE, why="seen enough")
    coding.refresh_from_db()
    story.refresh_from_db()
    assert coding.stop_requested_at is None and story.held_for == ""
    assert Session.objects.get(agent=watcher).stop_requested_by == "alice"


def test_an_assigned_story_is_gone_on_with_from_the_stopped_coders_work(shop: Shop) -> None:
    project = shop.open(coders=2)
    story = shop.start(project, [{"run": "echo one >> a.txt"}, {"say": "written"}, wait_for()])
    shop.until_line(story, "written")
    roster.assign(story, "coder-2", actor=ALICE)
    shop.server.until(lambda: len(shop.sessions(story)) == 2, what="the second coder")
    shop.go(shop.until_line(story, "written"))
    story = shop.until_stage(story, "done")
    shop.settled()
    first, second = shop.sessions(story)
    assert [(s.agent.name, s.outcome) for s in (first, second)] == [
        ("coder-1", "stopped"),
        ("coder-2", "done"),
    ]
    assert second.began_at_commit == first.saved
    control = conf.control_path(project.key)
    assert factories.git("show", f"{second.saved}:a.txt", cwd=control) == "one\none"
    assert read_ref(control, "refs/heads/huskies/story-1") == second.saved
