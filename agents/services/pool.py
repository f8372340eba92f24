"""The agent pool: start, claim, assign, stop.

A claim is one transaction. Its first statement locks the capacity row; counts and limits are read by later statements, so that they see
what the claim before has committed (measured: anything cleverer over-grants on PostgreSQL; rules.md, Claims and fences). What may not be
twice is a constraint besides. On SQLite, BEGIN IMMEDIATE is that lock.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from agents.exceptions import (
    AgentBusy,
    AlreadyOnIt,
    MustWait,
    NoSuchAgent,
    ProjectUnusable,
    RoleTaken,
    StoryHindered,
    WrongStage,
)
from agents.models import Agent, Session
from agents.services import choosing, logins, news, sessions
from agents.states import Role
from pipeline import events, moves, taskqueue
from pipeline.actors import Actor
from pipeline.exceptions import AlreadyWaiting, AlreadyWorked, NothingRunning
from pipeline.models import Capacity, Process, Project, Story
from pipeline.models.project import ProjectState
from pipeline.prepared import Select, Update, insert_all
from pipeline.processes.crashpoint import crashpoint
from pipeline.services import dependencies, gates, hosts, merges, processes
from pipeline.services.stories import check_may, locked
from pipeline.stages import Stage

logger = logging.getLogger("huskies.pool")


@dataclass(frozen=True, slots=True)
class Started:
    """What start did: a session was claimed, or the story waits and `queued` says for what."""

    session: Session | None
    queued: str = ""


STAGES: dict[str, tuple[Stage, ...]] = {
    Role.CODER: (Stage.BACKLOG, Stage.CODING),
    Role.QA: (Stage.QA,),
    Role.MERGEMASTER: (Stage.MERGE, Stage.MERGE_FAILURE),
    Role.OTHER: (Stage.BACKLOG, Stage.CODING, Stage.QA, Stage.MERGE, Stage.MERGE_FAILURE),
}
"""Where an agent of each role may begin (rule 6); `other` looks on anywhere."""


def start_story(story: Story, *, actor: Actor, agent_name: str | None = None) -> Started:
    """Give a story to an agent: by name, else to a coder. A coder moves the story to coding, and a refused claim keeps that move.

    Already being worked is looked at first, then the move, then limits and claim. An agent of another role attaches where the story is, and
    is not waited for. Raises NotAllowed, NoSuchAgent, ProjectUnusable, AlreadyOnIt, RoleTaken, AlreadyWaiting, WrongStage, StoryHindered,
    TransitionRefused, NoCoder; AgentBusy for other roles.
    """
    check_may(actor, "story.start", story.project)
    if story.project.state == ProjectState.REFUSED:
        raise ProjectUnusable(f"Project {story.project.name} cannot be worked on: {story.project.reason}")
    agent = _agent_named(story.project, agent_name) if agent_name else None
    role = agent.role if agent else Role.CODER
    with transaction.atomic():
        Capacity.lock()
        story = locked(story)
        _refuse_worked(story, role, agent)
        _refuse_hindered(story, role, agent)
        if role == Role.CODER:
            _to_coding(story, actor, agent)
        else:
            Story.objects.filter(pk=story.pk).update(held_for="", not_before=None)
            story.held_for, story.not_before = "", None
        started = _claim_or_wait(story, actor, role=role, named=agent_name or "")
        if started.session is None and role != Role.CODER:
            raise AgentBusy(f"{agent_name} cannot take story {story.label} now: {started.queued}.")
        events.record(story.project_id, "story", story=story, text=f"{actor.name} started #{story.number}")
    crashpoint("start-committed")
    return started


def _to_coding(story: Story, actor: Actor, agent: Agent | None) -> None:
    """The move of a coder's start (rule 5), who asked for it, and which agent is waited for."""
    now = timezone.now()
    values: dict[str, Any] = {"asked_by": actor.user or story.asked_by, "waiting_since": now}
    if agent is not None:
        values["preferred_agent"] = agent.name
    if story.stage == Stage.CODING:
        if not story.held_for:
            raise AlreadyWaiting(
                f"Story {story.label} already waits: {story.waiting_for or 'it is looked after within seconds'}."
            )
        moves.note(story, "start", actor=actor, why=f"it was {story.held_for}")
        cleared = moves.CLEARED_BY_A_PERSON["start"]
        Story.objects.filter(pk=story.pk).update(held_for="", fence=F("fence") + 1, **cleared, **values)
        _read_again(story)
    else:
        project = story.project
        moves.move(story, "start", actor=actor, held_for="", **values)
        story.project = project  # read with the story; the move forgot it


LIVE_ON: Select[Session] = Select(
    lambda story: Session.objects.live().filter(story=story).select_related("agent"), int
)


def _refuse_worked(story: Story, role: str, agent: Agent | None) -> None:
    """Rules 9 and 10, before anything else is looked at."""
    live = LIVE_ON(story.pk)
    for session in live:
        if agent is not None and session.agent_id == agent.pk:
            raise AlreadyOnIt(
                f"Story {story.label} is already being worked on by {session.agent.name} (session {session.pk}, {session.state})."
            )
    for session in live:
        if session.role == role != Role.OTHER:
            wish = f"; {agent.name} cannot join it" if agent else ""
            raise RoleTaken(
                f"Story {story.label} is already being worked on by {session.agent.name} (session {session.pk}, {session.state}){wish}."
            )
    gate = gates.live_run(story) if role == Role.CODER and story.stage == Stage.CODING else None
    if gate:
        raise AlreadyWorked(
            f"Story {story.label} is already being worked on: its gate runs on {gate.commit[:8]}."
        )


def _refuse_hindered(story: Story, role: str, agent: Agent | None) -> None:
    """The stage must fit the role, and nothing else must have to happen first."""
    if story.deleting:
        raise StoryHindered(f"Story {story.label} is being deleted by {story.deleting}.")
    if agent is not None and story.stage not in STAGES[role]:
        hint = "; unblock it first" if story.stage == Stage.BLOCKED else ""
        fitting = ", ".join(Stage(stage).label.lower() for stage in STAGES[role])
        raise WrongStage(
            f"{agent.name} is a {Role(role).label} agent, and those start on stories in {fitting}: "
            f"story {story.label} is in {story.get_stage_display().lower()}{hint}."
        )
    if story.stage == Stage.BLOCKED:
        raise StoryHindered(
            f"Story {story.label} is blocked: {story.reason} Unblock it first, then start it."
        )
    if story.frozen:
        raise StoryHindered(f"Story {story.label} is frozen; unfreeze it first, then start it.")
    if role == Role.CODER and (unmet := dependencies.unmet([story.pk]).get(story.pk)):
        raise StoryHindered(
            f"Story {story.label} depends on {', '.join(map(str, unmet))}: those must be done or archived first. "
            "It starts by itself then; or remove the dependency."
        )
    if (
        role == Role.MERGEMASTER
        and (merge := merges.live_merge(story.project))
        and merge.story_id == story.pk
    ):
        raise StoryHindered(
            f"Story {story.label} is being merged by the server just now; look again when that is over."
        )


def _claim_or_wait(story: Story, actor: Actor, *, role: str = Role.CODER, named: str = "") -> Started:
    try:
        with transaction.atomic():  # a savepoint: a refused claim keeps the move
            return Started(claim(story, actor=actor, role=role, named=named))
    except MustWait as wait:
        if role == Role.CODER:
            Story.objects.filter(pk=story.pk).update(waiting_for=wait.message)
            story.waiting_for = wait.message
        return Started(None, wait.message)


TAKEN: dict[str, Any] = {"waiting_for": "", "waiting_since": None, "not_before": None}


def _unchanged(pk: int, fence: int, seen: str) -> QuerySet[Story]:
    return Story.objects.filter(pk=pk, fence=fence, stage=seen, deleting="")


TAKE = Update(
    lambda pk, fence, seen, base: (
        _unchanged(pk, fence, seen),
        {"base": base, "fence": F("fence") + 1, **TAKEN},
    ),
    *(int, int, str, str),
)
LOOK_ON = Update(
    lambda pk, fence, seen, base: (_unchanged(pk, fence, seen), {"base": base}), *(int, int, str, str)
)


@dataclass(frozen=True, slots=True)
class Grant:
    """A story and the agent that was chosen for it, on a look at the pool."""

    story: Story
    agent: Agent
    level: str
    """The confinement that its session runs in (confine.LADDER)."""


def chosen(story: Story, look: choosing.Pool, *, role: str = Role.CODER, named: str = "") -> Grant:
    """Raises MustWait with the true reason, NoCoder."""
    agent = choosing.choose(story, look, named=named, role=role)
    return Grant(story, agent, sessions.confinement_for(story.project, agent.entry))


def claim(story: Story, *, actor: Actor, role: str = Role.CODER, named: str = "") -> Session:
    """One session for a story, with its next fence. The caller holds the capacity lock. Raises MustWait with the true reason, NoCoder."""
    look = choosing.Pool.look([story])
    return open_sessions([chosen(story, look, role=role, named=named)], look.host, actor=actor)[0]


def open_sessions(grants: Sequence[Grant], host: str, *, actor: Actor) -> Sequence[Session]:
    """A session for each, all or none: the caller holds the capacity lock, and has looked at the pool since. Raises MustWait for all of them."""
    for grant in grants:
        _take(grant)
    known = _with_sessions(grants)
    newest = {pk: news.upto(pk) for pk in {grant.story.project_id for grant in grants}}
    prepared = processes.prepare_all(
        [Process(kind="agent", project=g.story.project, story=g.story, fence=g.story.fence) for g in grants]
    )
    try:
        made = insert_all(
            [
                _session(grant, process, host, known, newest)
                for grant, process in zip(grants, prepared, strict=True)
            ]
        )
    except IntegrityError as error:
        names = ", ".join(grant.agent.name for grant in grants)
        raise MustWait(
            f"{names} was taken in the same moment; it is looked at again within seconds"
        ) from error
    moves.note_all(
        [(g.story, f"{g.agent.name}, session {s.pk}") for g, s in zip(grants, made, strict=True)],
        "claim",
        actor=actor,
    )
    crashpoint("claim-inside-transaction")
    return made


def _take(grant: Grant) -> None:
    """The story's next fence, if it is still as it was seen. Who only looks on does not make the others' work stale."""
    story, seen = grant.story, grant.story.stage
    base = story.base or story.project.tip
    works = grant.agent.role != Role.OTHER
    if (TAKE if works else LOOK_ON)(story.pk, story.fence, seen, base) != 1:
        raise MustWait(
            "something else happened to it in the same moment; it is looked at again within seconds"
        )
    values: dict[str, Any] = {"base": base}
    if works:
        values |= {"fence": story.fence + 1, **TAKEN}
    for name, value in values.items():
        setattr(story, name, value)


def _with_sessions(grants: Sequence[Grant]) -> set[int]:
    """The stories that had a session before: only those have work or a conversation to go on with."""
    of = [grant.story.pk for grant in grants]
    if len(of) == 1:  # it asks itself, with statements that are made already
        return set(of)
    return set(Session.objects.filter(story__in=of).values_list("story_id", flat=True))


def _session(
    grant: Grant, process: Process, host: str, known: set[int], newest: Mapping[int, int]
) -> Session:
    story, agent = grant.story, grant.agent
    resumed = sessions.conversation_to_resume(story, agent) if story.pk in known else None
    saved = sessions.last_saved(story) if story.pk in known else ""
    return Session(
        story=story,
        project=story.project,
        agent=agent,
        role=agent.role,
        runtime=agent.runtime,
        model=agent.model,
        entry=agent.entry,
        credential=logins.for_agent(agent),
        key=process.key,
        fence=story.fence,
        host=host,
        started_by_id=story.asked_by_id or story.owner_id,
        process=process,
        conversation=resumed.conversation if resumed else str(uuid.uuid4()),
        resumed=resumed is not None,
        sandbox=grant.level,
        base=story.base,
        began_at_commit=saved or story.tip,
        news_upto=newest[story.project_id],
    )


def _agent_named(project: Project, name: str) -> Agent:
    agents = list(Agent.objects.filter(project=project, configured=True))
    for agent in agents:
        if agent.name == name:
            return agent
    known = ", ".join(agent.name for agent in agents)
    raise NoSuchAgent(f"Project {project.name} has no agent {name!r}. Its agents: {known or 'none'}.")


def _read_again(story: Story) -> None:
    project = story.project
    moves.read_again(story)
    story.project = project


def stop_story(story: Story, *, actor: Actor, why: str = "") -> None:
    """Stop what runs on the story and hold it until someone starts it. The state changes once the end is verified. Raises NothingRunning."""
    check_may(actor, "story.stop", story.project)
    with transaction.atomic():
        story = locked(story)
        live = list(story.sessions.live())
        gating = gates.live_run(story)
        if not live and gating is None:
            raise NothingRunning(
                f"Nothing runs on story {story.label}, so there is nothing to stop. It is in {story.get_stage_display().lower()}."
            )
        Story.objects.filter(pk=story.pk).update(
            held_for=f"stopped by {actor.name}",
            fence=F("fence") + 1,
            waiting_for="",
            waiting_since=None,
            not_before=None,
        )
        for session in live:
            sessions.request_stop(session, by=actor.name)
        if gating is not None:
            gates.cancel(gating, by=actor.name)
        moves.note(story, "stop", actor=actor, why=why)
        events.record(story.project_id, "story", story=story, text=f"{actor.name} stopped #{story.number}")
    crashpoint("stop-requested")
    for session in live:
        sessions.carry_out_stop(session.pk)


def server_is_running() -> bool:
    """Whether this host's supervisor was heard of within the last ten seconds."""
    return hosts.runs_here()


def look_later(project_id: int) -> None:
    """Something may have freed an agent, or wants one: the queue looks soon, the sweep in any case."""
    taskqueue.enqueue("agents.tasks.assign", project_id)
