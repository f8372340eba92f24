"""What people say to an agent: a message while it works, one that takes its conversation up again, or words for which its turn is ended.

A message is a row first and told after it (`telling`). Which agent goes on, and when, is the pool's to say, as for every start.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from agents.exceptions import AlreadyOnIt, CannotHear, WrongStage
from agents.models import Message, Session
from agents.runtimes import get_runtime
from agents.runtimes.base import Runtime
from agents.services import pool, roster, sessions, telling
from agents.states import Role, State
from pipeline import events, moves
from pipeline.actors import Actor
from pipeline.exceptions import AlreadyWaiting, BadInput, NothingRunning
from pipeline.models import Story
from pipeline.services.stories import check_may, locked, refuse_deleted
from pipeline.stages import Stage
from pipeline.texts import storable

TEXT_AT_MOST = 8000  # characters: with its escapes it fits into one request to the runner
MAY = "session.message"


def message(session: Session, text: str, *, actor: Actor) -> tuple[Message, str]:
    """Say something to the agent: now if it runs, else its conversation is taken up with it.

    Returns the message, and why it has not begun where that is so. Raises NotAllowed, BadInput, CannotHear, and what a start raises.
    """
    check_may(actor, MAY, session.project)
    text = _valid(text)
    if session.state == State.ENDED:
        return _resume(session, text, actor)
    runtime = get_runtime(session.runtime)
    if runtime.message(text) is None:
        raise CannotHear(
            f"{session.agent.name} works with {session.runtime}, which takes no message while it works. "
            "Interrupt it with these words, or write to it when its session has ended."
        )
    with transaction.atomic():
        row = _write(session, text, actor)
    telling.tell(session.pk)
    return row, ""


def interrupt(session: Session, *, actor: Actor, text: str = "") -> str:
    """End the turn under way. With words the agent goes on with them; without, its work is saved and the story held, as after a stop.

    Returns how it goes on. Raises NotAllowed, BadInput, NothingRunning, CannotHear.
    """
    check_may(actor, MAY, session.project)
    if session.state == State.ENDED:
        raise NothingRunning(
            f"Session {session.pk} has ended, so there is nothing to interrupt. A message takes its conversation up again."
        )
    if not text.strip():
        roster.stop_agent(session.agent, actor=actor, why=f"session {session.pk} was interrupted")
        return "its work is saved and the story held; start it, or write to its agent, to go on"
    text = _valid(text)
    if can_be_interrupted(get_runtime(session.runtime)):
        with transaction.atomic():
            _write(session, text, actor, interrupts=True)
        telling.tell(session.pk)
        return "its turn ends and it goes on with these words"
    return _replace(session, text, actor)


def can_be_interrupted(runtime: Runtime) -> bool:
    """Whether it can end a turn and go on within its session."""
    return bool(getattr(runtime, "interrupts", False))


def _resume(session: Session, text: str, actor: Actor) -> tuple[Message, str]:
    """A new session of the same agent on the story, through the same claim and limits as any."""
    story, agent = session.story, session.agent
    queued = ""
    try:
        with transaction.atomic():
            try:
                queued = pool.start_story(story, actor=actor, agent_name=agent.name).queued
            except AlreadyWaiting:  # it goes on anyhow: with these words, and with this agent
                Story.objects.filter(pk=story.pk).update(preferred_agent=agent.name)
                queued = story.waiting_for or "it is looked after within seconds"
            row = _write(session, text, actor)
    except AlreadyOnIt:
        live = roster.running(agent)
        if live is None or live.story_id != story.pk:
            raise
        return message(live, text, actor=actor)
    except WrongStage as refused:
        if story.stage == Stage.QA and agent.role == Role.CODER:
            raise WrongStage(
                f"{refused.message} Reject it with these words: then the agent goes on."
            ) from None
        raise
    return row, queued


def _replace(session: Session, text: str, actor: Actor) -> str:
    """A program that cannot be interrupted is stopped, and its conversation goes on with the words in a new session."""
    if session.role != Role.CODER:
        raise CannotHear(
            f"{session.agent.name} cannot go on with other words: {session.runtime} takes none while it works. "
            "Interrupt it without words, and write to it when its session has ended."
        )
    with transaction.atomic():
        story = locked(session.story)
        refuse_deleted(story)
        if not sessions.request_stop(session, by=actor.name):
            raise CannotHear(f"Session {session.pk} is being stopped already; write to it when it has ended.")
        Story.objects.filter(pk=story.pk).update(
            fence=F("fence") + 1,
            held_for="",
            preferred_agent=session.agent.name,
            waiting_for=f"{session.agent.name} stops, then goes on with what {actor.name} said",
            waiting_since=timezone.now(),
        )
        _write(session, text, actor)
        pool.look_later(story.project_id)
    sessions.carry_out_stop(session.pk)
    return "it is stopped, and its conversation goes on with these words"


def _write(session: Session, text: str, actor: Actor, *, interrupts: bool = False) -> Message:
    row = Message.objects.create(
        session=session, author=actor.name, user=actor.user, text=text, interrupts=interrupts
    )
    what = "interrupted it and said" if interrupts else "said"
    moves.note(session.story, "message", actor=actor, why=f"session {session.pk}: {what}: {text}")
    events.record(session.project_id, "session", story=session.story)
    return row


def _valid(text: str) -> str:
    text = storable(text.strip(), "message")
    if not text:
        raise BadInput("The message is empty. Write what the agent is to know or do.")
    if len(text) > TEXT_AT_MOST:
        raise BadInput(
            f"A message has at most {TEXT_AT_MOST:,} characters; this one has {len(text):,}. Put the rest into the story's text."
        )
    return text
