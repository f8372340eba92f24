"""Stop really stops: whatever an agent or a gate has started, none of it is alive when its session is said to have ended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agents import conf as agents_conf
from agents.models import Session
from agents.services import pool
from pipeline.models import GateRun
from pipeline.processes import confine
from pipeline.processes.identity import Identity, is_alive, marked_processes
from pipeline.processes.runfolder import MARKER
from tests.e2e.shop import Shop, Step, wait_for, write
from tests.factories import ALICE
from tests.logs import events

HIDING: dict[str, list[Step]] = {
    "ignores SIGTERM": [{"ignore_term": True}],
    "setsid nohup": [{"run": "setsid nohup sleep 600 >/dev/null 2>&1 &"}],
    "double fork": [{"run": "(setsid sh -c 'sleep 600 >/dev/null 2>&1 &') >/dev/null 2>&1"}],
    "daemon": [{"daemon": True}],
    "children": [{"fork": 5}],
    "holds stdout": [{"hold_stdout": True}],
    "all of it": [{"ignore_term": True}, {"daemon": True}, {"fork": 3}, {"hold_stdout": True}],
}
SETTLED: Step = {"say": "all are started"}


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.needs_bubblewrap), "limits"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(agents_conf, "STOP_GRACE_SECONDS", 0.2)
    name: str = request.param
    if name == "limits":
        monkeypatch.setattr(
            confine, "level_available", lambda: confine.Level("none", "Switched off by a test.")
        )
    return name


def identities(key: str) -> list[Identity]:
    """What carries the mark of this session now."""
    return [
        identity for one in marked_processes(MARKER, key) if (identity := Identity.of(one.pid)) is not None
    ]


def until_nothing_is_alive(shop: Shop, session: Session, before: list[Identity]) -> None:
    """At the very moment at which the session has ended, nothing of it lives."""

    def ended() -> bool:
        session.refresh_from_db()
        if session.state != "ended":
            return False
        assert marked_processes(MARKER, session.key) == []
        assert [one for one in before if is_alive(one)] == []
        return True

    shop.server.until(ended, what=f"the end of session {session.pk}", seconds=30)


@pytest.mark.parametrize("steps", HIDING.values(), ids=HIDING.keys())
def test_nothing_of_a_stopped_agent_is_alive(shop: Shop, level: str, steps: list[Step]) -> None:
    project = shop.open()
    story = shop.start(project, [*steps, SETTLED, {"hang": True}])
    session = shop.until_line(story, "all are started")
    assert session.sandbox == level
    before = identities(session.key)
    assert len(before) >= 2, "the runner and the agent at least"
    pool.stop_story(story, actor=ALICE)
    until_nothing_is_alive(shop, session, before)
    assert (session.outcome, shop.fresh(story).held_for) == ("stopped", "stopped by alice")
    shop.settled()


def test_nothing_of_an_agent_that_ended_by_itself_is_alive(shop: Shop, level: str) -> None:
    project = shop.open()
    story = shop.start(
        project, [{"daemon": True}, {"fork": 2}, {"hold_stdout": True}, SETTLED, wait_for(), write("a.txt")]
    )
    session = shop.until_line(story, "all are started")
    before = identities(session.key)
    assert len(before) >= 6
    shop.go(session)
    until_nothing_is_alive(shop, session, before)
    assert session.outcome == "done"
    shop.until_stage(story, "done")
    shop.settled()


def test_nothing_of_a_gate_that_is_stopped_is_alive(shop: Shop, level: str) -> None:
    check = (
        "setsid nohup sleep 600 >/dev/null 2>&1 & trap '' TERM; echo gate is up; while :; do sleep 600; done"
    )
    project = shop.open(files={"check.sh": check})
    story = shop.start(project, [write("a.txt")])

    def of_gate(found: Callable[[GateRun], object]) -> Callable[[], object]:
        return lambda: (run := GateRun.objects.select_related("process").first()) and found(run)

    shop.server.until(
        of_gate(lambda run: run.process and events(run.process, "line")),
        what="the gate's words",
    )
    run = GateRun.objects.select_related("process").get()
    assert run.process is not None
    before = identities(run.process.key)
    assert len(before) >= 3
    pool.stop_story(story, actor=ALICE)
    shop.server.until(of_gate(lambda run: run.state == "over"), what="the end of the gate run", seconds=30)
    assert [one for one in before if is_alive(one)] == []
    run.refresh_from_db()
    assert (run.verdict, run.reason) == ("skipped", "Stopped by alice.")
    assert (shop.fresh(story).stage, shop.fresh(story).held_for) == ("coding", "stopped by alice")
    shop.settled()
