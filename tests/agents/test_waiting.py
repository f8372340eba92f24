"""Waiting for an end: unblocked by any kind of it, with a report of how it went; and output from any point."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from agents.exceptions import StillRunning
from agents.models import Session
from agents.services import output, pool, waiting
from pipeline import conf, logevents
from pipeline.models import Story
from pipeline.services.stories import perform
from tests import factories
from tests.e2e.shop import Shop, wait_for, write
from tests.factories import ALICE
from tests.logs import add_events

REPORT = {
    "story", "stage", "session", "agent", "outcome", "reason", "gate", "output", "conversation", "worktree", "commits", "tokens", "cost_usd",
}  # fmt: skip


class Waiter(threading.Thread):
    """Somebody who waits, on a connection of their own, as a command does."""

    def __init__(self, what: Session | Story, seconds: float = 60) -> None:
        super().__init__(daemon=True)
        self.what, self.seconds = what, seconds
        self.found: dict[str, Any] | Exception = {}
        self.start()

    def run(self) -> None:
        try:
            self.found = waiting.wait(self.what, self.seconds)
        except Exception as error:
            self.found = error
        finally:
            connection.close()

    def answer(self) -> dict[str, Any]:
        self.join(30)
        assert not self.is_alive(), "it still waits"
        assert isinstance(self.found, dict), self.found
        return self.found


def stop(shop: Shop, session: Session) -> None:
    pool.stop_story(session.story, actor=ALICE)


def kill_runner(shop: Shop, session: Session) -> None:
    os.kill(shop.process(session).pid or 0, signal.SIGKILL)


def go_on(shop: Shop, session: Session) -> None:
    shop.go(session)


@pytest.mark.parametrize(("end", "outcome"), [(go_on, "done"), (stop, "stopped"), (kill_runner, "lost")])
def test_who_waits_for_a_session_hears_of_every_kind_of_end(
    shop: Shop, end: Callable[[Shop, Session], None], outcome: str
) -> None:
    project = shop.open(max_retries=0)
    story = shop.start(project, [write("a.txt"), {"say": "written"}, wait_for()])
    session = shop.until_line(story, "written")
    waiter = Waiter(session)
    end(shop, session)
    shop.server.until(lambda: not waiter.is_alive(), what=f"the end of the wait ({outcome})")
    found = waiter.answer()
    assert set(found) == REPORT
    assert (found["session"], found["agent"], found["outcome"]) == (session.pk, "coder-1", outcome)
    assert "written" in found["output"] and found["conversation"] == session.conversation
    assert len(found["commits"]) == 1  # the work is kept, whatever the end
    if outcome == "done":
        assert found["gate"]["verdict"] == "passed"
    pool_of = Session.objects.live().filter(story=story).first()
    if pool_of is not None:
        pool.stop_story(shop.fresh(story), actor=ALICE)
    shop.server.idle()


def test_who_waits_for_a_story_hears_when_it_has_landed(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [write("a.txt")])
    waiter = Waiter(story)
    shop.server.until(lambda: not waiter.is_alive(), what="the end of the wait")
    found = waiter.answer()
    story = shop.fresh(story)
    assert set(found) == REPORT
    assert (found["outcome"], found["stage"], found["worktree"]) == ("done", "done", None)
    assert story.landed and found["commits"][-1] == story.landed
    assert found["gate"]["verdict"] == "passed"
    shop.settled()


@pytest.mark.django_db
def test_a_wait_is_bounded_and_says_that_it_goes_on() -> None:
    project = factories.project()
    factories.coder(project)
    session = pool.start_story(factories.story(project), actor=ALICE).session
    assert session is not None
    with pytest.raises(StillRunning, match=rf"Session {session.pk} has not ended within 0.01 s"):
        waiting.wait(session, 0.01)
    with pytest.raises(StillRunning, match="Story web/1 has not ended"):
        waiting.wait(session.story, 0)


@pytest.mark.django_db
def test_a_deleted_session_ends_the_wait() -> None:
    project = factories.project()
    factories.coder(project)
    story = factories.story(project)
    session = pool.start_story(story, actor=ALICE).session
    assert session is not None
    before = waiting.report(session)
    Session.objects.filter(pk=session.pk).delete()
    assert waiting.over(session) and waiting.report(session) == {} and before["session"] == session.pk


@pytest.mark.django_db
@pytest.mark.parametrize("act", ["block", "archive", "hold"])
def test_a_story_that_only_a_person_moves_on_is_over_for_who_waits(act: str) -> None:
    story = factories.story(factories.project())
    assert waiting.over(story)  # in the backlog nothing happens by itself
    perform(story, act, actor=ALICE, why="later")
    assert waiting.wait(story, 0)["reason"] is not None or act == "archive"


@pytest.mark.django_db
def test_a_story_that_waits_for_an_agent_is_not_over() -> None:
    project = factories.project()
    factories.coder(project)
    pool.start_story(factories.story(project), actor=ALICE)
    second = factories.story(project)
    pool.start_story(second, actor=ALICE)
    assert not waiting.over(second)


@pytest.mark.django_db
def test_output_is_read_from_any_point_in_order_and_without_gaps() -> None:
    project = factories.project()
    factories.coder(project)
    session = pool.start_story(factories.story(project), actor=ALICE).session
    assert session is not None and session.process is not None
    many = logevents.MOST_EVENTS * 2 + 7
    for n in range(1, 41):  # more rows than are read at a time, of one event each
        add_events(session.process.pk, n, f"line {n}", kind="text")
    add_events(session.process.pk, 41, *(f"line {n}" for n in range(41, many + 1)), kind="text")
    assert [row.seq for row in output.events(session, 1)] == list(range(1, many + 1))
    assert [row.seq for row in output.events(session, many - 1)] == [many - 1, many]
    Session.objects.filter(pk=session.pk).update(state="ended", outcome="done")
    assert [row.seq for row in output.followed(session, many)] == [many]
    assert waiting.tail(session).splitlines()[-1] == f"line {many}"
    Session.objects.filter(pk=session.pk).delete()
    assert list(output.followed(session, many + 1)) == []
    assert conf.home()
