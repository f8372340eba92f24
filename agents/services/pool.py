"""The agent pool: start, claim, assign, stop.

A claim is one transaction. Its first statement locks the capacity row; counts and limits are read by later statements, so that they see
what the claim before has committed (measured: anything cleverer over-grants on PostgreSQL; rules.md, Claims and fences). What may not be
twice is a constraint besides. On SQLite, BEGIN IMMEDIATE is that lock.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from agents.exceptions import MustWait, NoSuchAgent
from agents.models import Agent, Session
from agents.services import logins, sessions
from agents.states import Role
from pipeline import conf, events, moves
from pipeline.actors import SERVER, Actor
from pipeline.exceptions import AlreadyWaiting, AlreadyWorked, NothingRunning, TransitionRefused
from pipeline.models import Capacity, GateRun, Host, Project, Story
from pipeline.models.project import ProjectState
from pipeline.processes.crashpoint import crashpoint
from pipeline.projectfile import ProjectFile
from pipeline.services import gates, processes, projects
from pipeline.services.stories import check_may
from pipeline.stages import Stage

logger = logging.getLogger("huskies.pool")


@dataclass(frozen=True, slots=True)
class Started:
    """What start did: a session was claimed, or the story waits and `queued` says for what."""

    session: Session | None
    queued: str = ""


def start_story(story: Story, *, actor: Actor, agent_name: str | None = None) -> Started:
    """Give a story to a coder. Already being worked is looked at first, then the move, then limits and claim; a refused claim keeps the move.

    Raises NotAllowed, AlreadyWorked, AlreadyWaiting, TransitionRefused, NoSuchAgent.
    """
    check_may(actor, "story.start", story.project)
    if agent_name is not None:
        _agent_named(story.project, agent_name)
    with transaction.atomic():
        Capacity.lock()
        story = Story.objects.select_for_update(of=("self",)).select_related("project").get(pk=story.pk)
        _refuse_worked(story)
        held = story.held_for
        if story.stage == Stage.CODING:
            if not held and not story.frozen:
                raise AlreadyWaiting(
                    f"Story {story.label} already waits: {story.waiting_for or 'it is looked after within seconds'}."
                )
            moves.note(story, "start", actor=actor, why=f"it was {held}" if held else "")
            Story.objects.filter(pk=story.pk).update(
                held_for="", fence=F("fence") + 1, retries=0, crashes=0, not_before=None
            )
            story.refresh_from_db()
        else:
            project = story.project
            moves.move(story, "start", actor=actor, held_for="")
            story.project = project  # read with the story; the move forgot it
        if story.frozen:
            raise TransitionRefused(f"Story {story.label} is frozen; unfreeze it first, then start it.")
        if agent_name is not None and agent_name != story.preferred_agent:
            Story.objects.filter(pk=story.pk).update(preferred_agent=agent_name)
            story.preferred_agent = agent_name
        started = _claim_or_wait(story, actor)
        events.record(story.project_id, "story", story=story, text=f"{actor.name} started #{story.number}")
    crashpoint("start-committed")
    return started


def _claim_or_wait(story: Story, actor: Actor) -> Started:
    try:
        with transaction.atomic():  # a savepoint: a refused claim keeps the move
            return Started(claim(story, actor=actor))
    except MustWait as wait:
        Story.objects.filter(pk=story.pk).update(waiting_for=wait.message)
        story.waiting_for = wait.message
        return Started(None, wait.message)


def claim(story: Story, *, actor: Actor) -> Session:
    """One session for a story in coding, with the story's next fence. The caller holds the capacity lock. Raises MustWait with the true reason."""
    now = timezone.now()
    project, capacity = story.project, Capacity.objects.get(pk=1)
    if capacity.draining:
        raise MustWait("the server is draining: it finishes what runs and starts nothing new")
    if project.state != ProjectState.READY or not project.tip:
        raise MustWait(
            f"project {project.name} is {project.get_state_display()}"
            + (f": {project.reason}" if project.reason else "")
        )
    if story.not_before and story.not_before > now:
        # Whoever made it wait has said why; a look in between must not take that away.
        raise MustWait(story.waiting_for or f"it is tried again at {story.not_before:%H:%M:%S} UTC")
    file = projects.active_file(project)
    _within_limits(project, capacity, file)
    agent = _choose(story, file, now)
    level = sessions.confinement_for(project)
    fence, base = story.fence + 1, story.base or project.tip
    if (
        Story.objects.filter(pk=story.pk, fence=story.fence, stage=Stage.CODING).update(
            fence=fence, base=base, waiting_for="", not_before=None
        )
        != 1
    ):
        raise MustWait(
            "something else happened to it in the same moment; it is looked at again within seconds"
        )
    story.fence, story.base, story.waiting_for = fence, base, ""
    resumed = sessions.conversation_to_resume(story, agent)
    process = processes.prepare("agent", project=project, story=story, fence=fence)
    try:
        session = Session.objects.create(
            story=story,
            project=project,
            agent=agent,
            role=agent.role,
            runtime=agent.runtime,
            model=agent.model,
            entry=agent.entry,
            credential=logins.for_agent(agent),
            key=process.key,
            fence=fence,
            host=conf.host(),
            started_by=actor.user,
            process=process,
            conversation=resumed.conversation if resumed else str(uuid.uuid4()),
            resumed=resumed is not None,
            sandbox=level,
            base=base,
            began_at_commit=sessions.last_saved(story) or story.tip,
        )
    except IntegrityError as error:
        raise MustWait(
            f"{agent.name} was taken in the same moment; it is looked at again within seconds"
        ) from error
    moves.note(story, "claim", actor=actor, why=f"{agent.name}, session {session.pk}")
    crashpoint("claim-inside-transaction")
    return session


def _refuse_worked(story: Story) -> None:
    session = story.sessions.live().select_related("agent").filter(role=Role.CODER).first()
    if session:
        raise AlreadyWorked(
            f"Story {story.label} is already being worked on by {session.agent.name} (session {session.pk}, {session.state})."
        )
    gate = gates.live_run(story) if story.stage == Stage.CODING else None
    if gate:
        raise AlreadyWorked(
            f"Story {story.label} is already being worked on: its gate runs on {gate.commit[:8]}."
        )


def _within_limits(project: Project, capacity: Capacity, file: ProjectFile) -> None:
    live = Session.objects.live()
    server, limit = live.count(), capacity.limit
    if server >= limit:
        raise MustWait(f"the server is at its limit: {server} of {limit} agents are at work")
    if project.limit is not None:
        here = live.filter(project=project).count()
        if here >= project.limit:
            raise MustWait(
                f"project {project.name} is at its limit: {here} of {project.limit} agents are at work"
            )
    if file.max_coders is not None:
        coders = live.filter(project=project, role=Role.CODER).count()
        if coders >= file.max_coders:
            raise MustWait(
                f"project {project.name} is at its limit of coders (max_coders): {coders} of {file.max_coders} are at work"
            )


def _choose(story: Story, file: ProjectFile, now: datetime) -> Agent:
    """The preferred agent, the one whose conversation goes on, else the first free coder in the file's order. Raises MustWait."""
    coders = list(
        Agent.objects.filter(project=story.project, configured=True, role=Role.CODER).order_by("position")
    )
    if not coders:
        raise MustWait(f"project {story.project.name} has no coder; name one in its project file")
    model = file.default_coder_model
    wanted = next((a for a in coders if a.name == story.preferred_agent), None)
    if wanted is None and story.next_prompt:
        last = story.sessions.filter(role=Role.CODER).order_by("-id").first()
        wanted = next((a for a in coders if last and a.pk == last.agent_id and not a.paused_for), None)
    pool = [wanted] if wanted else [a for a in coders if not model or a.model == model]
    sessions_now = Session.objects.live().filter(project=story.project).select_related("story")
    busy = {s.agent_id: s for s in sessions_now.only("agent_id", "created_at", "story__number")}
    reasons: list[str] = []
    for agent in pool:
        if agent.pk in busy:
            continue
        hindered = agent.paused_for or logins.hindrance(agent, now)
        if not hindered:
            return agent
        reasons.append(f"{agent.name} is paused: {hindered}")
    if reasons:
        raise MustWait("; ".join(dict.fromkeys(reasons)))
    names = [
        f"{a.name} has been on #{busy[a.pk].story.number} for {_minutes(busy[a.pk], now)}"
        for a in pool
        if a.pk in busy
    ]
    if wanted:
        raise MustWait(f"its agent {names[0]}" if names else f"its agent {wanted.name} is not available")
    if not names:
        raise MustWait(
            f"no coder of project {story.project.name} uses the model {model} (default_coder_model)"
        )
    raise MustWait(f"{len(names)} of {len(pool)} coders busy; {', '.join(names[:4])}")


def _minutes(session: Session, now: datetime) -> str:
    minutes = int((now - session.created_at).total_seconds() // 60)
    return f"{minutes} min" if minutes else "less than a minute"


def _agent_named(project: Project, name: str) -> Agent:
    agent = Agent.objects.filter(project=project, configured=True, name=name).first()
    if agent is None:
        known = ", ".join(
            Agent.objects.filter(project=project, configured=True, role=Role.CODER).values_list(
                "name", flat=True
            )
        )
        raise NoSuchAgent(f"Project {project.name} has no agent {name!r}. Its coders: {known or 'none'}.")
    if agent.role != Role.CODER:
        raise NoSuchAgent(f"{name} is a {agent.get_role_display()} agent; stories are started with a coder.")
    return agent


def waiting(project_id: int) -> list[Story]:
    """The stories of a project that want a coder: in coding, unhindered, without live work, lowest number first."""
    working = Session.objects.live().filter(project_id=project_id).values("story_id")
    gating = GateRun.objects.exclude(state="over").values("story_id")
    rows = (
        Story.objects.filter(project_id=project_id)
        .waiting_for_a_coder()
        .exclude(pk__in=working)
        .exclude(pk__in=gating)
    )
    return list(rows.select_related("project"))


def auto_assign(project_id: int) -> int:
    """Give every waiting story of a project a fitting free agent; each that must wait says why. Idempotent; returns how many were claimed."""
    claimed = 0
    for story in waiting(project_id):
        if gates.owed(story):
            gates.request_gate(story, purpose="coding", commit=story.tip)
            continue
        with transaction.atomic():
            Capacity.lock()
            fresh = (
                Story.objects.select_for_update(of=("self",))
                .select_related("project")
                .filter(pk=story.pk)
                .waiting_for_a_coder()
                .first()
            )
            if fresh is None or fresh.sessions.live().exists():
                continue
            before = fresh.waiting_for
            started = _claim_or_wait(fresh, SERVER)
            claimed += started.session is not None
            if started.session is not None or started.queued.split(" for ")[0] != before.split(" for ")[0]:
                events.record(project_id, "story", story=fresh)
    return claimed


def auto_assign_all() -> None:
    """The sweep behind every nudge: each project that has a story waiting."""
    for project_id in (
        Story.objects.filter(stage=Stage.CODING, frozen=False, held_for="")
        .values_list("project_id", flat=True)
        .distinct()
    ):
        auto_assign(project_id)


def stop_story(story: Story, *, actor: Actor, why: str = "") -> None:
    """Stop what runs on the story and hold it until someone starts it. The state changes once the end is verified. Raises NothingRunning."""
    check_may(actor, "story.stop", story.project)
    with transaction.atomic():
        story = Story.objects.select_for_update(of=("self",)).select_related("project").get(pk=story.pk)
        live = list(story.sessions.live())
        gating = gates.live_run(story)
        if not live and gating is None:
            raise NothingRunning(
                f"Nothing runs on story {story.label}, so there is nothing to stop. It is in {story.get_stage_display().lower()}."
            )
        Story.objects.filter(pk=story.pk).update(
            held_for=f"stopped by {actor.name}", fence=F("fence") + 1, waiting_for=""
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
    """Whether this host's supervisor was seen within the last ten seconds."""
    seen = Host.objects.filter(name=conf.host()).values_list("seen_at", flat=True).first()
    return bool(seen and (timezone.now() - seen).total_seconds() < 10)
