"""The verbs of an agent: pause, resume, stop, and assign it to a story. A pause and a stop keep what runs in order: nothing is cut off unseen."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from agents.exceptions import NoSuchAgent
from agents.models import Agent, Session
from agents.services import breaker, pool, sessions
from agents.services.pool import Started
from agents.states import Role
from pipeline import events, moves
from pipeline.actors import Actor
from pipeline.exceptions import NothingRunning, Refused, TransitionRefused
from pipeline.models import Act, Capacity, Story
from pipeline.services.stories import check_may, locked, refuse_deleted
from pipeline.stages import OVER, Stage
from pipeline.texts import storable

WHY_AT_MOST = 500  # characters, as in the column


def pause_agent(agent: Agent, *, actor: Actor, why: str = "") -> Agent:
    """It takes nothing new until a person resumes it, whatever the project file says; its session goes on. Raises NotAllowed, Refused."""
    check_may(actor, "agent.pause", agent.project)
    told = (storable(why, "reason").strip() or f"paused by {actor.name}")[:WHY_AT_MOST]
    with transaction.atomic():
        Capacity.lock()  # a claim that saw it unpaused is over before the pause is promised
        # A pause of the server's becomes the person's: a new project file no longer ends it.
        changed = Agent.objects.filter(pk=agent.pk, paused_by="").update(
            paused_for=told, paused_by=actor.name
        )
        if not changed:
            agent.refresh_from_db()
            raise Refused(
                f"Agent {label(agent)} is paused already, by {agent.paused_by}: {agent.paused_for}. Resume it first to give another reason."
            )
        _tell(agent, "agent.pause", actor, why.strip())
    agent.refresh_from_db()
    return agent


def resume_agent(agent: Agent, *, actor: Actor) -> Agent:
    """Ends a pause, a person's or the server's. Raises NotAllowed, Refused."""
    check_may(actor, "agent.pause", agent.project)
    with transaction.atomic():
        why = Agent.objects.filter(pk=agent.pk).values_list("paused_for", flat=True).first()
        changed = Agent.objects.filter(pk=agent.pk).exclude(paused_for="").update(paused_for="", paused_by="")
        if not changed:
            raise Refused(f"Agent {label(agent)} is not paused, so there is nothing to resume.")
        _tell(agent, "agent.resume", actor, f"it was paused: {why}")
        breaker.after_resume(agent, actor=actor)
        pool.look_later(agent.project_id)
    agent.refresh_from_db()
    return agent


def stop_agent(agent: Agent, *, actor: Actor, why: str = "") -> Session:
    """Stop what the agent runs; its work is kept. A coder's story is held; one that only looks on (`other`) ends alone. Raises NothingRunning."""
    check_may(actor, "session.stop", agent.project)
    session = running(agent)
    if session is None:
        raise NothingRunning(f"Agent {label(agent)} runs nothing, so there is nothing to stop.")
    if session.role != Role.OTHER:
        pool.stop_story(session.story, actor=actor, why=why)
        return session
    with transaction.atomic():
        sessions.request_stop(session, by=actor.name)
        moves.note(session.story, "stop", actor=actor, why=f"{agent.name} alone. {why}".strip())
        events.record(session.project_id, "session", story=session.story)
    sessions.carry_out_stop(session.pk)
    return session


def assign(story: Story, agent_name: str, *, actor: Actor) -> Started:
    """The story belongs to that coder from now on: the wish is kept for every later start, another coder on it is stopped, and it starts at once.

    `queued` says why it has not begun: most often the other's work is being saved. Raises NotAllowed, NoSuchAgent, TransitionRefused.
    """
    check_may(actor, "agent.assign", story.project)
    agent = coder_named(story, storable(agent_name, "agent's name"))
    with transaction.atomic():
        story = locked(story)
        refuse_deleted(story)
        if story.stage in OVER:
            raise TransitionRefused(
                f"Story {story.label} cannot be assigned: it is {story.get_stage_display().lower()}. Reopen or restore it first."
            )
        coding = story.sessions.live().filter(role=Role.CODER).select_related("agent").first()
        values: dict[str, object] = {"preferred_agent": agent.name}
        replaced = coding if coding is not None and coding.agent_id != agent.pk else None
        if replaced is not None:
            # By its fence the end of the stopped session no longer holds the story: the sweep behind it starts the new one.
            values |= {
                "fence": F("fence") + 1,
                "held_for": "",
                "waiting_for": f"{replaced.agent.name} stops, then {agent.name} goes on",
                "waiting_since": timezone.now(),
                "asked_by": actor.user or story.asked_by,
            }
            sessions.request_stop(replaced, by=actor.name)
        Story.objects.filter(pk=story.pk).update(**values)
        moves.note(story, "assign", actor=actor, why=f"to {agent.name}")
        events.record(
            story.project_id,
            "story",
            story=story,
            text=f"{actor.name} assigned #{story.number} to {agent.name}",
        )
        pool.look_later(story.project_id)
    story.refresh_from_db()
    if replaced is not None:
        sessions.carry_out_stop(replaced.pk)
        return Started(None, story.waiting_for)
    if coding is not None:
        return Started(coding)
    return _start(story, agent, actor)


def _start(story: Story, agent: Agent, actor: Actor) -> Started:
    """At once where a start can: the wish stands whatever comes of it."""
    if story.stage not in (Stage.BACKLOG, Stage.CODING):
        return Started(
            None, f"it is in {story.get_stage_display().lower()}; {agent.name} gets it when it is coded again"
        )
    if story.stage == Stage.CODING and not story.held_for:
        return Started(None, f"{agent.name} gets it as soon as it can. {story.waiting_for}".strip())
    try:
        return pool.start_story(story, actor=actor, agent_name=agent.name)
    except Refused as refused:
        return Started(None, refused.message)


def coder_named(story: Story, name: str) -> Agent:
    """Raises NoSuchAgent, with the names there are."""
    rows = Agent.objects.filter(project=story.project, configured=True)
    agent = rows.filter(name=name).first()
    if agent is not None and agent.role == Role.CODER:
        return agent
    known = ", ".join(rows.filter(role=Role.CODER).values_list("name", flat=True)) or "none"
    if agent is not None:
        raise NoSuchAgent(
            f"{name} is a {agent.get_role_display()} agent; a story is assigned to a coder. Its coders: {known}."
        )
    raise NoSuchAgent(f"Project {story.project.name} has no agent {name!r}. Its coders: {known}.")


def running(agent: Agent) -> Session | None:
    """The agent's live session, with its story."""
    return Session.objects.live().filter(agent=agent).select_related("story__project", "agent").first()


def label(agent: Agent) -> str:
    return f"{agent.project.name}/{agent.name}"


def _tell(agent: Agent, verb: str, actor: Actor, why: str) -> None:
    Act.objects.create(actor=actor.name, verb=verb, subject=f"agent {label(agent)}", why=why)
    past = {"agent.pause": "paused", "agent.resume": "resumed"}[verb]
    events.record(agent.project_id, "agents", text=f"{actor.name} {past} {agent.name}")
