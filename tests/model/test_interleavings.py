"""Every verb between any two statements of another, on two real connections: no rule breaks, nothing deadlocks, nothing fails unseen."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction
from pytest_django import Settings

from agents.models import Session
from agents.services import assigning, limiting, pool
from pipeline import moves
from pipeline.exceptions import Refused
from pipeline.models import Process, Project, Story
from pipeline.models.process import ProcessState
from pipeline.services import deleting, processes
from pipeline.services.stories import edit_story, perform
from tests import factories
from tests.factories import ALICE
from tests.model.invariants import Witness

pytestmark = pytest.mark.django_db(transaction=True)

BLOCKED_AFTER = 0.1
"""Seconds after which the second verb is taken to wait for a lock of the first, which then goes on."""

Verb = Callable[[], object]


class Scene:
    """Story 1 may be started, story 2 is worked on by coder-1, story 3 waits; two coders, and a server with two places."""

    def __init__(self) -> None:
        Session.objects.all().delete()
        Project.objects.all().delete()
        self.project = factories.project()
        factories.capacity(2)
        for number in (1, 2):
            factories.coder(self.project, number)
        self.pks = [factories.story(self.project).pk for _ in range(3)]
        session = pool.start_story(self.story(1), actor=ALICE).session
        with transaction.atomic():
            moves.move(self.story(2), "start", actor=ALICE)
        assert session is not None and session.process is not None
        self.process: Process = session.process
        Process.objects.filter(pk=self.process.pk).update(state=ProcessState.RUNNING, pid=2**22 - 1)
        self.witness = Witness(self.project, quick=True)
        self.witness.look()

    def story(self, place: int) -> Story:
        return Story.objects.select_related("project").get(pk=self.pks[place])

    def ends(self) -> None:
        exit = {"version": 1, "key": self.process.key, "outcome": "lost", "code": None, "log_size": 0}
        Process.objects.filter(pk=self.process.pk, state=ProcessState.RUNNING).update(
            state=ProcessState.LOST, exit=exit, ended_at=self.process.created_at
        )
        processes.handle_end(self.process.pk)

    def verbs(self) -> dict[str, Verb]:
        return {
            "start": lambda: pool.start_story(self.story(0), actor=ALICE),
            "start by name": lambda: pool.start_story(self.story(0), actor=ALICE, agent_name="coder-2"),
            "assign": assigning.auto_assign,
            "stop": lambda: pool.stop_story(self.story(1), actor=ALICE),
            "end": self.ends,
            "hold": lambda: perform(self.story(1), "hold", actor=ALICE),
            "park": lambda: perform(self.story(2), "park", actor=ALICE),
            "block": lambda: perform(self.story(1), "block", actor=ALICE, why="as played"),
            "delete": lambda: deleting.delete_story(self.story(2), actor=ALICE),
            "delete what runs": lambda: deleting.delete_story(self.story(1), actor=ALICE),
            "edit": lambda: edit_story(self.story(2), actor=ALICE, preferred_agent="coder-1"),
            "lower the limit": lambda: limiting.set_limit("server", "", 1, actor=ALICE),
        }


VERBS = (
    "start", "start by name", "assign", "stop", "end", "hold", "park", "block", "delete", "delete what runs", "edit",
    "lower the limit",
)  # fmt: skip


class Actor(threading.Thread):
    """A verb on a connection of its own; before its statement number `pause_at` it lets the other one go first."""

    def __init__(self, verb: Verb, pause_at: int = 0) -> None:
        super().__init__()
        self.verb, self.pause_at = verb, pause_at
        self.statements = 0
        self.reached, self.go_on, self.done = threading.Event(), threading.Event(), threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with connection.execute_wrapper(self.count):
                self.verb()
        except Refused:
            pass
        except Story.DoesNotExist:
            pass  # it was deleted before the verb could look for it, which a page answers with 404
        except BaseException as error:
            self.error = error
        finally:
            connections.close_all()
            self.reached.set()
            self.done.set()

    def count(self, execute: Callable[..., Any], *statement: Any) -> Any:
        self.statements += 1
        if self.statements == self.pause_at:
            self.reached.set()
            assert self.go_on.wait(30)
        return execute(*statement)


def between(first: str, second: str, pause_at: int) -> None:
    """The second verb begins before statement `pause_at` of the first one."""
    scene = Scene()
    verbs = scene.verbs()
    one, two = Actor(verbs[first], pause_at), Actor(verbs[second])
    one.start()
    assert one.reached.wait(30)
    two.start()
    two.done.wait(BLOCKED_AFTER)
    one.go_on.set()
    one.join(60)
    two.join(60)
    where = f"{second!r} before statement {pause_at} of {first!r}"
    assert not one.is_alive() and not two.is_alive(), f"{where}: neither ended"
    assert one.error is None and two.error is None, f"{where}: {one.error!r}, {two.error!r}"
    if "lower the limit" in (first, second):
        scene.witness.live |= set(
            Session.objects.live().values_list("pk", flat=True)
        )  # granted before it was lowered
    try:
        scene.witness.look()
    except AssertionError as error:
        raise AssertionError(f"{where}: {error}") from error


def cases() -> Iterator[tuple[str, str, int]]:
    for first in VERBS:
        alone = Actor(Scene().verbs()[first])
        alone.start()
        alone.join(60)
        assert alone.error is None, alone.error
        for second in VERBS:
            for pause_at in range(1, alone.statements + 1):
                yield first, second, pause_at


@pytest.fixture(autouse=True)
def no_queue(settings: Settings) -> None:
    settings.HUSKIES_NO_QUEUE = True


def test_two_verbs_at_once_break_no_rule(seed):
    for case in random.Random(seed).sample(list(cases()), 30):
        between(*case)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_verb_between_any_two_statements_of_every_other():
    for case in cases():
        between(*case)
