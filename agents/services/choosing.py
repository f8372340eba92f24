"""Which agent takes a story, or why it must wait: a look at the pool, and one pure function over it.

The same function judges twice: in a look without locks, which turns away most refusals, and in the claim's transaction, on a look taken
after the capacity row was locked (rules.md, Claims and fences).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

from agents.exceptions import MustWait, NoCoder
from agents.models import Agent, Limit, Session
from agents.models.limit import Scope, applying
from agents.services import breaker, preflight
from agents.services.spending import Budgets
from agents.states import Role
from pipeline import conf
from pipeline.models import Capacity, Host, Project, Story
from pipeline.models.project import ProjectState
from pipeline.prepared import Select
from pipeline.projectfile import ProjectFile
from pipeline.services import dependencies, gates, hosts, projectfiles
from pipeline.stages import Stage

SHOWN_BUSY = 4


@dataclass(frozen=True, slots=True)
class Live:
    """What a live session takes of each limit."""

    agent: int
    project: int
    story: int
    number: int
    role: str
    model: str
    host: str
    person: int | None
    since: datetime
    suspect: datetime | None = None
    """Since when nothing is heard of its host."""


def _agents() -> QuerySet[Agent]:
    return Agent.objects.filter(configured=True).order_by("position")


AGENTS_OF_ONE: Select[Agent] = Select(lambda project: _agents().filter(project=project), int)
DRAINING: Select[tuple[int]] = Select(lambda: Capacity.objects.filter(pk=1, draining=True).values_list("pk"))
LIMITS: Select[Limit] = Select(Limit.objects.all)
LIVE: Select[tuple[Any, ...]] = Select(
    lambda: Session.objects.live().values_list(
        "agent_id", "project_id", "story_id", "story__number", "role", "model", "host", "started_by_id", "created_at",
        "suspect_since",
    )
)  # fmt: skip


@dataclass(slots=True)
class Pool:
    """Everything a choice looks at, read by a handful of queries for any number of stories."""

    now: datetime
    host: str
    closed: str
    """Why nothing at all starts here, "" = it does."""
    limits: dict[tuple[str, str], int]
    live: list[Live]
    agents: dict[int, list[Agent]]
    unfit: dict[str, str]
    """Runtime -> why nothing starts with it on this host."""
    logged_out: set[str]
    """The runtimes whose programs are not logged in on this host."""
    unmet: dict[int, list[str]]
    in_review: dict[int, int]
    files: dict[int, ProjectFile] = field(default_factory=dict)
    hindrances: dict[int, str] = field(default_factory=dict)
    _budgets: Budgets | None = None

    @classmethod
    def look(cls, stories: Collection[Story]) -> Pool:
        wanted = {story.project_id for story in stories}
        limits = _limits()
        agents: dict[int, list[Agent]] = {pk: [] for pk in wanted}
        for agent in AGENTS_OF_ONE(*wanted) if len(wanted) == 1 else _agents().filter(project__in=wanted):
            agents[agent.project_id].append(agent)
        draining = bool(DRAINING())
        host = conf.host()
        unfit, logged_out = preflight.look(host)
        return cls(
            now=timezone.now(),
            host=host,
            closed="the server is draining: it finishes what runs and starts nothing new"
            if draining
            else hosts.refusal(host),
            limits=limits,
            live=[Live(*row) for row in LIVE()],
            agents=agents,
            unfit=unfit,
            logged_out=logged_out,
            unmet=dependencies.unmet([story.pk for story in stories]),
            in_review=awaiting_review(wanted) if any(scope == Scope.REVIEW for scope, _ in limits) else {},
        )

    def file(self, project: Project) -> ProjectFile:
        found = self.files.get(project.pk)
        if found is None:
            found = self.files[project.pk] = projectfiles.held_file(project)
        return found

    def hindrance(self, agent: Agent) -> str:
        """Why this agent takes nothing just now although it is idle, "" if nothing is in its way."""
        if agent.pk not in self.hindrances:
            paused = agent.paused_for and f"{agent.name} is paused: {agent.paused_for}"
            runtime = self.unfit.get(agent.runtime, "") or preflight.missing_command(agent)
            key = breaker.hindrance(agent, self.now, self.logged_out)
            self.hindrances[agent.pk] = paused or runtime or (key and f"{agent.name} is paused: {key}")
        return self.hindrances[agent.pk]

    def budgets(self) -> Budgets:
        """What may still be spent, read at the first agent that is idle."""
        if self._budgets is None:
            self._budgets = Budgets.look(self.now)
        return self._budgets

    def count(self, story: Story, agent: Agent) -> None:
        """The agent works on the story from now on. What that may cost is in no row yet: where `budgeted`, nothing more is chosen on this look."""
        self.live.append(
            Live(
                agent.pk, story.project_id, story.pk, story.number, agent.role,
                agent.model, self.host, story.asked_by_id or story.owner_id, self.now,
            )
        )  # fmt: skip

    @property
    def budgeted(self) -> bool:
        return bool(self.budgets().rows)


def choose(story: Story, pool: Pool, *, named: str = "", role: str = Role.CODER) -> Agent:
    """The agent that takes the story now. Raises MustWait with the true reason, NoCoder.

    `named`: this agent or none; else the story's preferred one, the one whose conversation goes on, or the first free one in the file's order.
    """
    project = story.project
    if pool.closed:
        raise MustWait(pool.closed)
    if project.state != ProjectState.READY or not project.tip:
        why = f": {project.reason}" if project.reason else ""
        raise MustWait(f"project {project.name} is {project.get_state_display()}{why}")
    if role == Role.CODER and (unmet := pool.unmet.get(story.pk)):
        raise MustWait(f"it depends on {', '.join(map(str, unmet))}, which must be done or archived first")
    if story.not_before and story.not_before > pool.now:
        # Whoever made it wait has said why; a look in between must not take that away.
        raise MustWait(story.waiting_for or f"it is tried again at {story.not_before:%H:%M:%S} UTC")
    _within(story, pool, role)
    agents = [agent for agent in pool.agents.get(project.pk, ()) if agent.role == role]
    if named:
        agents = [agent for agent in pool.agents.get(project.pk, ()) if agent.name == named]
    if not agents:
        raise NoCoder(
            f"Project {project.name} has no {Role(role).label} agent; name one in its project file, or start the story with an agent by name."
        )
    wanted = agents[0] if named else _wanted(story, agents, pool, role)
    model = pool.file(project).default_coder_model if role == Role.CODER else None
    field = [wanted] if wanted else [a for a in agents if not model or a.model == model]
    if not field:
        raise MustWait(f"no coder of project {project.name} uses the model {model} (default_coder_model)")
    return _free(story, field, pool, wanted, role)


def _wanted(story: Story, agents: list[Agent], pool: Pool, role: str) -> Agent | None:
    """The one agent that this story waits for, None = any will do. A preference for a name that is no such agent is ignored."""
    preferred = next((a for a in agents if a.name == story.preferred_agent), None)
    if preferred is not None:
        minutes = story.any_agent_after
        waited = pool.now - (story.waiting_since or pool.now)
        busy = any(live.agent == preferred.pk for live in pool.live)
        if minutes is not None and busy and waited >= timedelta(minutes=minutes):
            return None
        return preferred
    if role == Role.CODER and story.next_prompt:
        last = story.sessions.filter(role=role).order_by("-id").values_list("agent_id", flat=True).first()
        return next((a for a in agents if a.pk == last and not pool.hindrance(a)), None)
    return None


def _free(story: Story, field: list[Agent], pool: Pool, wanted: Agent | None, role: str) -> Agent:
    """The first of them that is idle and unhindered; or MustWait."""
    busy = {live.agent: live for live in pool.live}
    person = story.asked_by or story.owner
    reasons: list[str] = []
    for agent in field:
        if agent.pk in busy:
            continue
        reason = (
            pool.hindrance(agent) or _own_limit(agent, pool) or pool.budgets().refusal(story, agent, person)
        )
        if not reason:
            return agent
        reasons.append(reason)
    if reasons:
        raise MustWait("; ".join(dict.fromkeys(reasons)))
    at_work = [_at_work(agent, busy[agent.pk], pool.now) for agent in field]
    if wanted:
        raise MustWait(f"its agent {at_work[0]}", line=f"agent:{wanted.pk}")
    label = "coders" if role == Role.CODER else f"{Role(role).label} agents"
    raise MustWait(
        f"{len(at_work)} of {len(field)} {label} busy",
        f"; {', '.join(at_work[:SHOWN_BUSY])}",
        line=f"{role}:{story.project_id}",
    )


def _at_work(agent: Agent, live: Live, now: datetime) -> str:
    silent = (
        f" (nothing is heard of its host {live.host} since {live.suspect:%H:%M} UTC)" if live.suspect else ""
    )
    return f"{agent.name} has been on #{live.number} for {minutes(live.since, now)}{silent}"


def _within(story: Story, pool: Pool, role: str) -> None:
    """The limits that do not depend on the agent. Raises MustWait naming the one that is reached."""
    project, limits, live = story.project, pool.limits, pool.live
    most = limits.get((Scope.SERVER, ""), settings.HUSKIES_SERVER_LIMIT)
    _room("the server is at its limit", len(live), most)
    most_here = applying(limits, Scope.HOST, pool.host)
    _room(f"host {pool.host} is at its limit", sum(x.host == pool.host for x in live), most_here)
    here = [x for x in live if x.project == project.pk]
    _room(f"project {project.name} is at its limit", len(here), applying(limits, Scope.PROJECT, project.pk))
    person = story.asked_by_id or story.owner_id
    allowed = applying(limits, Scope.USER, person) if person else None
    if allowed is not None:
        name = (story.asked_by or story.owner).get_username()  # type: ignore[union-attr]  # one of them is there
        _room(f"{name} is at their limit", sum(x.person == person for x in live), allowed)
    of_role = applying(limits, Scope.ROLE, role)
    _room(f"the role {Role(role).label} is at its limit", sum(x.role == role for x in live), of_role)
    if role != Role.CODER:
        return
    _room(
        f"project {project.name} is at its limit of coders (max_coders)",
        sum(x.role == Role.CODER for x in here),
        pool.file(project).max_coders,
    )
    reviews, waiting = applying(limits, Scope.REVIEW, project.pk), pool.in_review.get(project.pk, 0)
    if reviews is not None and waiting >= reviews and not story.tip:  # work that was begun goes on
        raise MustWait(
            f"{waiting} stories of project {project.name} await a person's review (its limit is {reviews}); approve or reject some of them first"
        )


def _own_limit(agent: Agent, pool: Pool) -> str:
    """Why a limit of the agent or of its model keeps it from starting, "" if none does."""
    own = applying(pool.limits, Scope.AGENT, agent.pk)
    if own == 0:
        return f"{agent.name} is at its limit: it may take nothing (0)"
    most = applying(pool.limits, Scope.MODEL, agent.model) if agent.model else None
    used = sum(x.model == agent.model for x in pool.live)
    if most is not None and used >= most:
        return f"the model {agent.model} is at its limit: {used} of {most} agents use it"
    return ""


def _room(what: str, used: int, most: int | None) -> None:
    if most is not None and used >= most:
        raise MustWait(f"{what}: {used} of {most} agents are at work", line=what)


def _limits() -> dict[tuple[str, str], int]:
    """(scope, subject) -> at most; hosts by their name, since that is what a session carries."""
    limits = {(row.scope, row.subject): row.most for row in LIMITS()}
    if any(scope == Scope.HOST and subject for scope, subject in limits):
        names = {str(pk): name for pk, name in Host.objects.values_list("pk", "name")}
        return {
            (scope, names.get(subject, subject) if scope == Scope.HOST else subject): most
            for (scope, subject), most in limits.items()
        }
    return limits


def awaiting_review(project_ids: Iterable[int]) -> Counter[int]:
    """Project id -> how many of its stories wait in QA for a person."""
    rows = Story.objects.filter(project__in=project_ids, stage=Stage.QA, frozen=False)
    return Counter(
        story.project_id
        for story in rows.select_related("project")
        if gates.qa_mode(story, projectfiles.held_file(story.project)) == "human"
    )


def minutes(since: datetime, now: datetime) -> str:
    whole = int((now - since).total_seconds() // 60)
    return f"{whole} min" if whole else "less than a minute"


def wanting(role: str) -> Q:
    """The stories that an agent of this role may be given by the server."""
    stage = {Role.CODER: Stage.CODING, Role.QA: Stage.QA}[Role(role)]
    return Q(stage=stage, frozen=False, held_for="", deleting="")
