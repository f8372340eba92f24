"""What must hold after every step, whatever was done in which order: the doctor's checkers for rows, and what only a witness can say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from django.db.models import Count

from agents.doctor import all_of_agents
from agents.models import Limit, Session
from agents.models.limit import Scope, applying
from agents.states import LIVE, State
from pipeline import conf
from pipeline.doctor import Checker, all_of_pipeline, examine
from pipeline.models import Host, Process, Project, StageChange, Story
from pipeline.models.process import ProcessState
from pipeline.services import projectfiles
from pipeline.stages import NEEDS_A_PERSON, Stage
from pipeline.transitions import VERBS

OF_GIT_AND_KERNEL = ("pipeline.doctor.history", "pipeline.doctor.kernel")
NOT_OF_ROWS = ("limits", "saved", "copies", "costs")
"""`limits`: whoever only looks cannot tell a limit that was lowered under what runs from one that was passed; the witness can."""


QUICK = ("pipeline.doctor.rows", "agents.doctor.sessions")


def checkers(*, quick: bool) -> list[Checker]:
    """The doctor's, without those that ask git or the kernel: no child is real here. `quick`: those of fences, ends and slots."""
    of_rows = [c for c in (*all_of_pipeline(), *all_of_agents()) if c.__module__ not in OF_GIT_AND_KERNEL]
    return [c for c in of_rows if c.__name__ not in NOT_OF_ROWS and (not quick or c.__module__ in QUICK)]


@dataclass
class Witness:
    """Remembers what it saw, since some lies are only seen by who was there before."""

    project: Project
    quick: bool
    fences: dict[int, int] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    ended: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    live: set[int] = field(default_factory=set)

    def look(self, *, quick: bool | None = None) -> None:
        """Raises AssertionError with what is wrong."""
        told = examine(checkers(quick=self.quick if quick is None else quick))
        lies = [
            lie for lie in told if lie.rule != "R9"
        ]  # the next sweep is only due: `said_why` asks after it came
        assert not lies, "\n".join(map(str, lies))
        stories = list(Story.objects.select_related("project").order_by("pk"))
        sessions = list(Session.objects.select_related("agent").order_by("pk"))
        self.limits(sessions)
        self.once(sessions)
        self.stories(stories)
        for story in stories:
            replay(story)
        granted = StageChange.objects.filter(verb="claim").values_list("story_id").annotate(n=Count("pk"))
        counted = Session.objects.values_list("story_id").annotate(n=Count("pk")).order_by()
        assert dict(granted.order_by()) == dict(counted), "each grant is one session, and the history says so"

    def limits(self, sessions: list[Session]) -> None:
        """At most one live session per agent, and per story and role; who was granted just now is within every limit of now."""
        live = [session for session in sessions if session.state in LIVE]
        unique([session.agent_id for session in live], "an agent works on two things")
        unique([(s.story_id, s.role) for s in live if s.role != "other"], "two of one role share a story")
        rows = {(row.scope, row.subject): row.most for row in Limit.objects.all()}
        hosts = dict(Host.objects.values_list("name", "pk"))
        for new in (session for session in live if session.pk not in self.live):
            used = {
                (Scope.SERVER, ""): len(live),
                (Scope.HOST, hosts.get(new.host, new.host)): sum(s.host == new.host for s in live),
                (Scope.PROJECT, new.project_id): sum(s.project_id == new.project_id for s in live),
                (Scope.ROLE, new.role): sum(s.role == new.role for s in live),
                (Scope.AGENT, new.agent_id): sum(s.agent_id == new.agent_id for s in live),
            }
            if new.model:
                used[Scope.MODEL, new.model] = sum(s.model == new.model for s in live)
            if new.started_by_id:
                used[Scope.USER, new.started_by_id] = sum(s.started_by_id == new.started_by_id for s in live)
            for (scope, subject), count in used.items():
                most = applying(rows, scope, subject)
                assert most is None or count <= most, f"{new}: {count} of {scope} {subject!r}, at most {most}"
        self.live = {session.pk for session in live}

    def once(self, sessions: list[Session]) -> None:
        """An end is for ever, a fence is given to one, and what is over has no child."""
        for session in sessions:
            if session.state == State.ENDED:
                said = (session.outcome, session.reason, session.saved)
                assert self.ended.setdefault(session.pk, said) == said, f"{session} ended twice"
                if session.process_id:
                    alive = Process.objects.live().filter(pk=session.process_id).exists()
                    assert not alive, f"{session} is over and its process lives"

    def stories(self, stories: Iterable[Story]) -> None:
        most = projectfiles.active_file(self.project).max_retries
        for story in stories:
            assert story.fence >= self.fences.get(story.pk, 0), f"{story.label}: its fence shrank"
            self.fences[story.pk] = story.fence
            owner = self.numbers.setdefault(story.number, story.pk)
            assert owner == story.pk, f"number {story.number} was given twice"
            assert not most or story.retries <= most, f"{story.label}: {story.retries} retries of {most}"
            if story.stage in NEEDS_A_PERSON:
                assert story.reason, f"{story.label} is {story.stage} without a reason"
            assert bool(story.blocked_in) == (story.stage == Stage.BLOCKED), f"{story.label}: blocked_in"


def replay(story: Story) -> None:
    """Every change of stage has its row, each row is an arrow of the table, and together they lead to where the story is."""
    at = ""
    for row in StageChange.objects.filter(story=story).order_by("pk"):
        if at == "":
            assert row.verb == "create", f"{story.label}: its history begins with {row.verb}"
            at = row.from_stage
        assert row.from_stage == at, f"{story.label}: {row.verb} from {row.from_stage}, and it was in {at}"
        if row.to_stage != row.from_stage:
            verb = VERBS[row.verb]
            assert row.from_stage in verb.sources, f"{story.label}: {row.verb} from {row.from_stage}"
            assert verb.target in (None, row.to_stage), f"{story.label}: {row.verb} to {row.to_stage}"
        at = row.to_stage
    assert at == story.stage, f"{story.label} is in {story.stage}, and its history leads to {at}"


def said_why() -> None:
    """After a pass of the server: whoever waits for an agent is told why."""
    busy = Session.objects.live().filter(role="coder").values("story_id")
    waiting = Story.objects.filter(stage=Stage.CODING, frozen=False, held_for="", deleting="", waiting_for="")
    for story in waiting.exclude(pk__in=busy).select_related("project"):
        gated = story.gate_runs.exclude(state="over").exists()
        assert gated, f"{story.label} waits in coding, and nobody says why"


def unique(things: list[object], what: str) -> None:
    assert len(things) == len(set(things)), f"{what}: {things}"


def strays() -> list[Process]:
    """Children of sessions that are over: none may be left when everything is quiet."""
    rows = Process.objects.filter(kind="agent", host=conf.host()).exclude(state=ProcessState.HANDLED)
    return list(rows.exclude(sessions__state__in=LIVE))
