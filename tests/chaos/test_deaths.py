"""Deaths that no crash point can name: of an agent, of its runner in the middle of its work, of the machine, and two supervisors."""

from __future__ import annotations

import json
import os
import signal

from agents.models import Session
from pipeline import conf
from pipeline.models import Process
from pipeline.processes.identity import Identity, is_alive, marked_processes
from pipeline.processes.runfolder import MARKER
from pipeline.supervisor import Supervisor
from tests.e2e.shop import Shop, wait_for, write
from tests.factories import git
from tests.logs import events

TURN = [write("a.txt"), {"say": "half of it"}, wait_for(), write("b.txt")]
REST = [write("b.txt")]


def kill_runner(session: Session) -> list[Identity]:
    """SIGKILL to the runner alone; returns all that lived before."""
    before = [identity for one in marked_processes(MARKER, session.key) if (identity := Identity.of(one.pid))]
    assert session.process is not None and session.process.pid is not None
    os.kill(session.process.pid, signal.SIGKILL)
    return before


def test_the_work_of_an_agent_that_dies_is_kept_and_its_conversation_goes_on(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [write("a.txt"), {"crash": "SIGKILL"}], [{"run": "cp a.txt b.txt"}])
    story = shop.until_stage(story, "done")
    first, second = shop.sessions(story)
    assert (first.outcome, second.outcome, story.retries, story.crashes) == ("crashed", "done", 0, 0)
    assert (
        second.conversation == first.conversation and second.resumed and second.began_at_commit == first.saved
    )
    assert sorted(path.name for path in shop.repo.glob("?.txt")) == ["a.txt", "b.txt"]
    shop.settled()


def test_a_story_whose_agents_always_die_is_blocked_with_the_reason_after_three(shop: Shop) -> None:
    project = shop.open()
    story = shop.until_stage(shop.start(project, [{"crash": "SIGSEGV"}]), "blocked")
    assert [session.outcome for session in shop.sessions(story)] == ["crashed"] * 3
    assert "3 sessions ended before their work was done" in story.reason and "SIGSEGV" in story.reason
    assert story.retries == 0
    shop.settled()


def test_a_runner_that_dies_leaves_a_mark_and_nothing_else(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [{"daemon": True}, *TURN], REST)
    session = shop.until_line(story, "half of it")
    before = kill_runner(session)
    session = shop.until_ended(session)
    assert [one for one in before if is_alive(one)] == []
    last = events(session.process)[-1]
    assert (session.outcome, last.kind) == ("lost", "cut") and "Cut here" in last.body["text"]
    story = shop.until_stage(story, "done")
    assert (story.retries, story.crashes, len(shop.sessions(story))) == (0, 0, 2)
    shop.settled()


def test_after_a_reboot_a_pid_of_the_time_before_is_nobody(shop: Shop) -> None:
    """The number may be another process's by now: it is neither followed nor killed."""
    project = shop.open()
    story = shop.start(project, TURN, REST)
    session = shop.until_line(story, "half of it")
    kill_runner(session)
    # The stranger that has the number now: this test itself.
    Process.objects.filter(pk=session.process_id or 0).update(boot_id="a boot of the past", pid=os.getpid())
    shop.server.supervisor.drop(shop.server.supervisor.followed[session.process_id or 0])
    story = shop.until_stage(story, "done")
    assert [one.outcome for one in shop.sessions(story)] == ["lost", "done"]
    shop.settled()


def test_after_a_loss_of_power_a_log_that_is_shorter_than_it_was_ends_the_session_as_lost(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, TURN, REST)
    session = shop.until_line(story, "half of it")
    stored = len(events(session.process))
    kill_runner(session)
    os.truncate(conf.runs() / session.key / "log", 100)
    session = shop.until_ended(session)
    assert session.outcome == "lost"
    found = events(session.process)
    assert [event.seq for event in found] == list(range(1, stored + 2)) and found[-1].kind == "cut"
    shop.until_stage(story, "done")
    shop.settled()


def test_a_record_that_was_cut_in_the_middle_is_no_line(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, TURN, REST)
    session = shop.until_line(story, "half of it")
    kill_runner(session)
    log = conf.runs() / session.key / "log"
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:30])  # a header and the first bytes of a record
    session = shop.until_ended(session)
    said = [json.dumps(event.body) for event in events(session.process)]
    assert (session.outcome, sum("half of it" in text for text in said)) == ("lost", 1)
    shop.until_stage(story, "done")
    shop.settled()


def test_of_two_supervisors_each_line_is_stored_once(shop: Shop) -> None:
    project = shop.open()
    lines = [f"line {number}" for number in range(300)]
    story = shop.start(
        project, [{"say": "ready"}, wait_for(), *({"say": line} for line in lines), write("a.txt")]
    )
    session = shop.until_line(story, "ready")
    other = Supervisor(tick_seconds=0.001)
    try:
        shop.go(session)

        def ended() -> bool:
            other.scan()
            other.follow()
            other.look_for_ends()
            session.refresh_from_db()
            return session.state == "ended"

        shop.server.until(ended, what="the session's end", seconds=30)
    finally:
        other.close()
    found = events(session.process)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert [event.body["text"] for event in found if event.kind == "text"] == ["ready", *lines]
    shop.until_stage(story, "done")
    assert git("rev-list", "--count", "main", cwd=shop.repo) == "2"
    shop.settled()
