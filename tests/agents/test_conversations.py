"""Which conversation goes on, why a new one begins, and what the agent is told then."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from agents.models import Agent, Session
from agents.services import assigning, deciding, pool, prompting
from agents.services.conversations import to_resume
from pipeline import conf
from pipeline.models import Process, Project, Story
from pipeline.projectfile import ProjectFile, registered_sections
from pipeline.services.stories import edit_story
from tests import factories
from tests.factories import ALICE

pytestmark = pytest.mark.django_db
COPY = Path("/copies/1")


@pytest.fixture
def web() -> Project:
    return factories.project()


@pytest.fixture
def coder(web: Project) -> Agent:
    return factories.coder(web, model="opus")


@pytest.fixture
def story(web: Project) -> Story:
    return factories.story(web, title="Add a button", description="Make it blue.", criteria=["It is blue."])


def ran(story: Story, agent: Agent, **values: Any) -> Session:
    """A session that has ended: by itself, after its agent worked, unless something else is said."""
    given: dict[str, Any] = {
        "key": conf.new_key(),
        "conversation": str(uuid.uuid4()),
        "state": "ended",
        "outcome": "done",
        "told": {"kind": "done", "detail": ""},
        "started_at": timezone.now(),
        "runtime": agent.runtime,
        "model": agent.model,
        **values,
    }
    return Session.objects.create(
        story=story,
        project=story.project,
        agent=agent,
        role=agent.role,
        fence=story.sessions.count() + 1,
        host="here",
        **given,
    )


def test_the_first_session_is_cold(story: Story, coder: Agent):
    assert to_resume(story, coder) == (None, "cold: there is no conversation of coder-1 on this story yet")


@pytest.mark.parametrize(
    "kind", ["done", "no_change", "crashed", "hung", "rate_limited", "stopped", "turn_limit", "lost"]
)
def test_a_conversation_goes_on_after_every_common_end(story: Story, coder: Agent, kind: str):
    session = ran(story, coder, outcome=kind, told={"kind": kind, "detail": ""})
    assert to_resume(story, coder) == (
        session,
        f"warm: it goes on with the conversation of session {session.pk}",
    )


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"kind": "config", "detail": "conversation_missing"}, "did not take up"),
        ({"kind": "config", "detail": "conversation_in_use"}, "did not take up"),
        ({"kind": "context_full", "detail": ""}, "grew too long"),
        ({"kind": "config", "detail": ""}, "was refused by the provider"),
    ],
)
def test_an_id_that_is_no_good_is_never_tried_again(
    story: Story, coder: Agent, told: dict[str, str], why: str
):
    good = ran(story, coder)
    bad = ran(story, coder, outcome=told["kind"], told=told, conversation=good.conversation)
    resume = to_resume(story, coder)
    assert (
        resume.session is None
        and resume.why.startswith("cold: ")
        and why in resume.why
        and str(bad.pk) in resume.why
    )
    fresh = ran(story, coder)
    assert to_resume(story, coder).session == fresh


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"started_at": None}, {"kind": "not_started", "detail": "not_begun"}),
        ({}, {"kind": "crashed", "detail": "not_begun"}),
        ({}, {"kind": "config", "detail": "program"}),
        ({"started_at": None}, None),
    ],
)
def test_a_session_that_said_nothing_tells_nothing_of_the_conversation(
    story: Story, coder: Agent, values: Any, told: Any
):
    good = ran(story, coder)
    ran(story, coder, told=told, conversation=good.conversation, **values)
    assert to_resume(story, coder).session == good


def test_another_model_or_runtime_begins_anew_and_says_why(story: Story, coder: Agent):
    session = ran(story, coder)
    coder.model = "haiku"
    assert to_resume(story, coder) == (
        None,
        f"cold: coder-1 has haiku now, and session {session.pk} had opus",
    )
    assert to_resume(story, coder, session=session).session == session, (
        "a claim keeps the model that it was made with"
    )
    coder.model, coder.runtime = "opus", "codex"
    assert "coder-1 runs with codex now" in to_resume(story, coder).why


def test_a_conversation_belongs_to_its_agent_and_story(web: Project, story: Story, coder: Agent):
    ran(story, coder)
    assert to_resume(story, factories.coder(web, 2, model="opus")).session is None
    assert to_resume(factories.story(web), coder).session is None


def test_a_resume_that_the_program_refuses_costs_nothing_and_the_next_session_begins_anew(
    story: Story, coder: Agent
):
    earlier = ran(story, coder)
    Story.objects.update(fence=earlier.fence)
    session = pool.start_story(story, actor=ALICE).session
    assert session is not None and (session.resumed, session.conversation) == (True, earlier.conversation)
    told = {"kind": "config", "detail": "conversation_missing", "reason": "It is not there.", "until": None}
    Session.objects.filter(pk=session.pk).update(state="stopping", told=told, started_at=timezone.now())
    Process.objects.all().delete()
    with transaction.atomic():
        deciding.conclude(Session.objects.get(pk=session.pk), None)
    story.refresh_from_db()
    assert (story.stage, story.retries, story.crashes, story.idle_total) == ("coding", 0, 0, 0)
    assert assigning.auto_assign() == 1
    fresh = Session.objects.latest("pk")
    assert not fresh.resumed and fresh.conversation != earlier.conversation


def prompt(story: Story, agent: Agent, *, warm: bool = True, said: str = "", kind: str = "") -> str:
    before = ran(story, agent)
    Story.objects.filter(pk=story.pk).update(next_prompt=said, next_kind=kind)
    session = ran(story, agent)
    session.story.refresh_from_db()
    file = ProjectFile.default(registered_sections())
    return prompting.prompt_for(session, previous=before if warm else None, copy=COPY, file=file)


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("said", ["", "Do it again."])
@pytest.mark.parametrize("kind", ["", "gate", "nothing", "notes", "continue"])
def test_a_message_is_never_empty(story: Story, coder: Agent, warm: bool, said: str, kind: str):
    told = prompt(story, coder, warm=warm, said=said, kind=kind)
    assert told.strip() and str(COPY) in told
    assert ("Make it blue." in told) is not warm
    if said and kind != "nothing":
        assert said in told


def test_a_cold_prompt_says_whose_words_it_repeats(story: Story, coder: Agent):
    assert "The end of the gate's output" in prompt(story, coder, warm=False, said="red", kind="gate")
    assert "Notes of a person" in prompt(story, coder, warm=False, said="please", kind="notes")


def test_a_conversation_that_goes_on_is_told_the_text_that_was_changed(story: Story, coder: Agent):
    before, file = ran(story, coder), ProjectFile.default(registered_sections())
    edit_story(story, actor=ALICE, priority=3)
    session = ran(story, coder)
    assert "Add a button" not in prompting.prompt_for(session, previous=before, copy=COPY, file=file)
    edit_story(story, actor=ALICE, description="Make it green.")
    session.story.refresh_from_db()
    told = prompting.prompt_for(session, previous=before, copy=COPY, file=file)
    assert (
        told.index("was changed since your last session")
        < told.index("Make it green.")
        < told.index("go on with the story")
    )
