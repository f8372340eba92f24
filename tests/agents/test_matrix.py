"""The acceptance matrix of original-huskies.md 4b: operation x condition, each cell with its result. "-" cells say what they are here."""

from datetime import timedelta

import pytest
from django.utils import timezone

from agents.exceptions import AgentBusy, AlreadyOnIt, RoleTaken, StoryHindered, WrongStage
from agents.models import Session
from agents.services import assigning, pool
from pipeline.exceptions import NothingRunning
from pipeline.models import Capacity, Dependency, Story
from pipeline.services.stories import perform
from tests import factories
from tests.factories import ALICE

pytestmark = pytest.mark.django_db

QUEUED, PENDING = "queued", "pending"


class Cell:
    """A project with two coders, a qa agent, a mergemaster and one story, in the stage that the operation's role works in."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.project = factories.project()
        for number in (1, 2):
            factories.coder(self.project, number)
        for position, name in enumerate(("qa", "mergemaster"), 3):
            for copy in (1, 2):
                factories.coder(self.project, position * 2 + copy, name=f"{name}-{copy}", role=name)
        self.stage = {"coder": "backlog", "qa": "qa", "mergemaster": "merge"}[role]
        self.story = self.new()

    def new(self) -> Story:
        story = factories.story(self.project)
        return self.put(story, stage=self.stage)

    def put(self, story: Story, **values) -> Story:
        Story.objects.filter(pk=story.pk).update(**values)
        story.refresh_from_db()
        return story

    def start(self, name: str | None, story: Story | None = None):
        return pool.start_story(story or self.story, actor=ALICE, agent_name=name)


def nobody(cell):
    pass


def same_agent_same_story(cell):
    cell.start(f"{cell.role}-1")


def other_agent_same_role_same_story(cell):
    cell.start(f"{cell.role}-2")


def same_agent_other_story(cell):
    cell.start(f"{cell.role}-1", cell.new())


def all_busy(cell):
    for number in (1, 2):
        cell.start(f"{cell.role}-{number}", cell.new())


def blocked(cell):
    cell.story = perform(cell.story, "block", actor=ALICE, why="The API is down.")


def frozen(cell):
    cell.story = perform(cell.story, "freeze", actor=ALICE)


def held(cell):
    cell.put(cell.story, stage="coding" if cell.role == "coder" else cell.stage, held_for="held by ben")


def unmet(cell):
    other = factories.story(cell.project)
    Dependency.objects.create(story=cell.story, on=other, number=other.number)


def restarting(cell):
    """No part of the server needs to be up for a start: what the server does next is found in the rows."""


CELLS = [
    # explicit coder
    ("coder", "coder-1", nobody, PENDING),
    ("coder", "coder-1", same_agent_same_story, AlreadyOnIt),
    ("coder", "coder-1", other_agent_same_role_same_story, RoleTaken),
    ("coder", "coder-1", same_agent_other_story, QUEUED),
    ("coder", "coder-1", all_busy, QUEUED),
    ("coder", "coder-1", blocked, WrongStage),
    ("coder", "coder-1", frozen, StoryHindered),
    ("coder", "coder-1", held, PENDING),  # a hold lasts until someone starts it
    ("coder", "coder-1", unmet, StoryHindered),
    ("coder", "coder-1", restarting, PENDING),
    # automatic
    ("coder", None, nobody, PENDING),
    ("coder", None, same_agent_same_story, RoleTaken),
    ("coder", None, other_agent_same_role_same_story, RoleTaken),
    ("coder", None, same_agent_other_story, PENDING),  # the other coder
    ("coder", None, all_busy, QUEUED),
    ("coder", None, blocked, StoryHindered),
    ("coder", None, frozen, StoryHindered),
    ("coder", None, held, PENDING),
    ("coder", None, unmet, StoryHindered),
    ("coder", None, restarting, PENDING),
    # qa and mergemaster: attach, never move, never queue
    *(
        (role, f"{role}-1", condition, result)
        for role in ("qa", "mergemaster")
        for condition, result in (
            (nobody, PENDING),
            (same_agent_same_story, AlreadyOnIt),
            (other_agent_same_role_same_story, RoleTaken),
            (same_agent_other_story, AgentBusy),
            (all_busy, AgentBusy),
            (blocked, WrongStage),
            (frozen, StoryHindered),
            (held, PENDING),
            (restarting, PENDING),
        )
    ),
    # dependencies hold back coders only: work that is past coding has begun already
    ("qa", "qa-1", unmet, PENDING),
    ("mergemaster", "mergemaster-1", unmet, PENDING),
]


@pytest.mark.parametrize(("role", "name", "condition", "result"), CELLS)
def test_start(role, name, condition, result):
    cell = Cell(role)
    condition(cell)
    cell.story.refresh_from_db()
    before, sessions = cell.story.stage, Session.objects.count()
    if isinstance(result, type):
        with pytest.raises(result) as refused:
            cell.start(name)
        assert "web/" in refused.value.message, "the refusal names the story"
    else:
        started = cell.start(name)
        assert (started.session is None) == (result == QUEUED)
        assert bool(started.queued) == (result == QUEUED)
    cell.story.refresh_from_db()
    assert Session.objects.count() == sessions + (result == PENDING)
    moved = role == "coder" and result in (PENDING, QUEUED)
    assert cell.story.stage == ("coding" if moved else before)


@pytest.mark.parametrize("condition", [nobody, blocked, frozen, unmet, same_agent_other_story])
def test_stop_without_anything_running_is_refused(condition):
    cell = Cell("coder")
    condition(cell)
    with pytest.raises(NothingRunning):
        pool.stop_story(cell.story, actor=ALICE)


@pytest.mark.parametrize("condition", [nobody, frozen, all_busy, restarting])
def test_stop_holds_the_story_and_ends_its_timer(condition):
    cell = Cell("coder")
    session = cell.start("coder-1").session
    if condition is all_busy:
        cell.start("coder-2", cell.new())
    else:
        condition(cell)
    cell.put(cell.story, not_before=timezone.now() + timedelta(hours=1))
    pool.stop_story(cell.story, actor=ALICE)
    session.refresh_from_db()
    cell.story.refresh_from_db()
    assert (session.state, session.outcome) == ("ended", "stopped")
    assert (cell.story.held_for, cell.story.not_before) == ("stopped by alice", None)


def waits_for_its_timer(cell, seconds=-1):
    """As after a rate limit whose time is over."""
    stage = {"coder": "coding", "qa": "qa"}[cell.role]
    cell.put(cell.story, stage=stage, qa="agent", not_before=timezone.now() + timedelta(seconds=seconds))


@pytest.fixture
def with_gate(monkeypatch):
    """`qa: agent` counts only where there is a gate."""
    from pipeline.services import gates

    monkeypatch.setattr(gates, "qa_mode", lambda story, file: story.qa or "server")


@pytest.mark.parametrize("role", ["coder", "qa"])
def test_a_timer_starts_the_right_roles_agent(role, with_gate):
    cell = Cell(role)
    waits_for_its_timer(cell, 60)
    assert assigning.auto_assign() == 0, "not before its time"
    waits_for_its_timer(cell)
    assert assigning.auto_assign() == 1
    assert Session.objects.get().role == role


@pytest.mark.parametrize(
    "condition", [same_agent_same_story, other_agent_same_role_same_story, blocked, frozen, held, unmet]
)
def test_a_timer_is_dropped_where_nothing_may_start(condition):
    cell = Cell("coder")
    condition(cell)
    sessions = Session.objects.count()
    if condition is not blocked:
        cell.put(cell.story, stage="coding")
    cell.put(cell.story, not_before=timezone.now() - timedelta(seconds=1))
    assert assigning.auto_assign() == 0 and Session.objects.count() == sessions


@pytest.mark.parametrize("condition", [same_agent_other_story, all_busy])
def test_a_timer_that_finds_nobody_free_leaves_the_story_queued(condition):
    cell = Cell("coder")
    condition(cell)
    cell.put(
        cell.story,
        stage="coding",
        preferred_agent="coder-1",
        not_before=timezone.now() - timedelta(seconds=1),
    )
    assert assigning.auto_assign() == 0
    cell.story.refresh_from_db()
    assert cell.story.waiting_for.startswith("its agent coder-1 has been on #2")


def test_a_timer_outlives_a_restart(with_gate):
    """It is a column: whoever looks first after its time starts the story."""
    cell = Cell("coder")
    waits_for_its_timer(cell)
    Capacity.objects.update(epoch=7)
    assert assigning.auto_assign() == 1
