"""Limits bite while an agent runs: real children, the real loop, and what becomes of their work."""

from __future__ import annotations

import shutil
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from agents import conf as agents_conf
from agents.models import Agent, Budget, Credential, RuntimeCheck, Session, Spend
from agents.services import pool, watching
from pipeline import conf
from pipeline.git import paths_changed, read_ref, session_ref, snapshot_ref
from pipeline.models import GateRun, StageChange
from pipeline.processes.identity import marked_processes
from pipeline.processes.runfolder import MARKER
from pipeline.services import stories
from tests.e2e.shop import Shop, Step, wait_for, write
from tests.factories import ALICE
from tests.logs import words

HANG: Step = {"hang": True}


def limit(shop: Shop, **keys: Any) -> None:
    for agent in Agent.objects.all():
        Agent.objects.filter(pk=agent.pk).update(entry=agent.entry | keys)


def usage(**counts: Any) -> Step:
    return {"usage": {"input": 10, **counts}}


def turn_with_tool(number: int) -> list[Step]:
    return [usage(), {"run": f"true {number}"}]


def turns(number: int, first: int = 1) -> list[Step]:
    return [step for n in range(first, first + number) for step in turn_with_tool(n)]


def until_warned(shop: Shop, session: Session) -> Session:
    def warned() -> bool:
        session.refresh_from_db()
        return session.warned_at is not None

    shop.server.until(warned, what=f"a warning of session {session.pk}", seconds=30)
    return session


def ended(shop: Shop, story: Any) -> Session:
    shop.server.until(lambda: shop.sessions(story), what="a session")
    return shop.until_ended(shop.sessions(story)[0])


def nothing_is_left_of(session: Session) -> bool:
    return not marked_processes(MARKER, session.key)


def test_a_limit_of_tool_turns_warns_first_then_ends_the_session_and_its_work_is_judged(shop: Shop) -> None:
    project = shop.open()
    limit(shop, max_tool_turns=5)
    story = shop.start(
        project, [write("a.txt"), *turns(3), {"say": "ready"}, wait_for(), *turns(4, first=4), HANG]
    )
    session = until_warned(shop, shop.until_line(story, "ready"))
    shop.go(session)
    session = shop.until_ended(session)
    assert (session.outcome, session.stop_cause, session.tool_turns) == ("turn_limit", "turn_limit", 8)
    assert (
        "5 of 5 turns that use a tool (max_tool_turns)" in session.reason
        and "split the story" in session.reason
    )
    assert nothing_is_left_of(session) and session.process is not None
    assert shop.exit_of(session.process)["verified"]
    assert "4 of 5 turns" in StageChange.objects.get(story=story, verb="warn").why
    story = shop.until_stage(story, "done")
    assert (story.retries, (shop.repo / "a.txt").exists()) == (0, True), "what it had done was good"
    shop.settled()


def test_who_makes_progress_after_the_warning_gets_a_fifth_more_once(shop: Shop) -> None:
    project = shop.open()
    limit(shop, max_tool_turns=10)
    after = [
        write("b.txt"),
        *turns(2, first=9),
        {"say": "still here"},
        wait_for(".git/on"),
        *turns(3, first=11),
        HANG,
    ]
    story = shop.start(project, [*turns(8), {"say": "ready"}, wait_for(), *after])
    session = until_warned(shop, shop.until_line(story, "ready"))
    shop.go(session)
    session = shop.until_line(story, "still here")
    watching.sweep()
    session.refresh_from_db()
    assert session.stop_requested_at is None and session.tool_turns <= 12
    (conf.copy_path(session.key) / ".git/on").touch()
    session = shop.until_ended(session)
    assert session.outcome == "turn_limit" and "12 of 12" in session.reason and "20 % more" in session.reason


def test_talk_alone_uses_no_tool_turns(shop: Shop) -> None:
    project = shop.open()
    limit(shop, max_tool_turns=2)
    talk = [step for n in range(10) for step in (usage(), {"say": f"thought {n}"})]
    story = shop.until_stage(shop.start(project, [*talk, write("a.txt")]), "done")
    (session,) = shop.sessions(story)
    assert (session.turns, session.tool_turns, session.outcome) == (10, 1, "done")


def test_a_budget_is_measured_from_the_stream_and_not_from_what_the_program_says_at_its_end(
    shop: Shop,
) -> None:
    project = shop.open(max_retries=1)
    limit(shop, max_budget_usd="1.00")
    big = usage(input=100_000, model="claude-sonnet-5-5")
    story = shop.start(project, [*[big] * 20, HANG])
    session = ended(shop, story)
    assert session.outcome == "budget" and session.warned_at is not None and session.reported_cost_usd is None
    assert "(max_budget_usd)" in session.reason
    shop.until_stage(story, "blocked")
    spent = sum(session.cost_usd for session in shop.sessions(story))
    assert spent == sum(row.usd for row in Spend.objects.all()) > Decimal(2)
    assert shop.fresh(story).idle_total == 0, "it did not end by itself"
    shop.settled()


def test_a_spent_budget_of_the_project_ends_what_it_pays_for_and_charges_nobody(shop: Shop) -> None:
    project = shop.open(coders=2)
    Budget.objects.create(scope="project", subject=str(project.pk), usd=Decimal("0.50"))
    costly = shop.start(project, [usage(input=1_000_000, model="claude-sonnet-5-5"), HANG])
    other = shop.start(project, [{"say": "hello"}, HANG])
    for story in (costly, other):
        session = ended(shop, story)
        assert (session.outcome, (session.told or {})["detail"]) == ("budget", "shared")
    shop.server.step()
    for story in (costly, other):
        story = shop.fresh(story)
        assert (story.stage, story.retries, story.crashes) == ("coding", 0, 0)
        assert (
            "the budget of project shop" in story.waiting_for
            and "it renews at 00:00 UTC" in story.waiting_for
        )
    assert not Session.objects.live().exists()


def test_the_memory_of_all_its_processes_together_is_limited(shop: Shop) -> None:
    project = shop.open()
    limit(shop, max_memory=100_000_000)
    hold = [{"hold_memory": 60_000_000}, {"hold_memory": 60_000_000}, HANG]
    story = shop.start(project, [write("a.txt"), {"commit": "Some work"}, *hold], [{"say": "again"}])
    session = ended(shop, story)
    assert session.outcome == "memory_limit" and session.peak_memory > 100_000_000
    assert "of 100,000,000 allowed (max_memory)" in session.reason and nothing_is_left_of(session)
    story = shop.until_stage(story, "done")
    assert (shop.repo / "a.txt").exists(), "its committed work was judged"


def test_an_agent_that_fills_the_disk_is_stopped_and_its_committed_work_is_judged(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_conf, "DISK_STEP", 1)
    monkeypatch.setattr(agents_conf, "DISK_PAUSE_SECONDS", 0.0)
    project = shop.open()
    limit(shop, max_disk=5_000_000)
    fill = [{"run": "yes | head -c 8000000 > ignored.txt"}, {"say": "full"}, HANG]
    first = [write("a.txt"), write(".gitignore", "ignored.txt\n"), {"commit": "Some work"}, *fill]
    story = shop.start(project, first, [{"say": "again"}])
    session = ended(shop, story)
    assert session.outcome == "disk_limit" and nothing_is_left_of(session)
    assert "more than 5,000,000 bytes on disk (max_disk)" in session.reason
    story = shop.until_stage(story, "done")
    assert (shop.repo / "a.txt").exists() and not (shop.repo / "ignored.txt").exists()


def test_an_agent_that_makes_too_many_files_is_stopped(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_conf, "DISK_STEP_ENTRIES", 1)
    monkeypatch.setattr(agents_conf, "DISK_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(agents_conf, "DISK_MOST_ENTRIES", 200)
    story = shop.start(shop.open(), [{"run": "seq 300 | xargs touch"}, HANG], [write("b.txt")])
    session = ended(shop, story)
    assert (session.outcome, nothing_is_left_of(session)) == ("disk_limit", True)
    assert "more than 200 files" in session.reason


def test_silence_ends_a_session_but_not_while_a_tool_is_known_to_run(shop: Shop) -> None:
    project = shop.open()
    limit(shop, inactivity_timeout=1.0)
    script = [
        write("a.txt"),
        {"open_tool": "a long test run"},
        {"sleep": 5},
        {"close_tool": True},
        {"say": "over"},
        HANG,
    ]
    story = shop.start(project, script, [write("b.txt")])
    session = ended(shop, story)
    assert session.outcome == "hung" and "over" in words(session.process)
    assert "1 seconds (inactivity_timeout)" in session.reason
    story = shop.until_stage(story, "done")
    assert [one.outcome for one in shop.sessions(story)] == ["hung", "done"]


def test_a_program_without_a_first_event_charges_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_conf, "FIRST_EVENT_SECONDS", 1.0)
    monkeypatch.setattr(agents_conf, "NOT_BEGUN_CAP", 1)
    monkeypatch.setattr("agents.runtimes.scripted.PROGRAM", shop.folder / "mute.py")
    (shop.folder / "mute.py").write_text("import time\ntime.sleep(600)\n")
    story = shop.until_stage(shop.start(shop.open(), [HANG]), "blocked")
    (session,) = shop.sessions(story)
    assert (session.outcome, story.crashes, story.retries) == ("not_started", 0, 0)
    assert (
        "no first event within 1 seconds" in story.reason and "could not be started 1 times" in story.reason
    )


def test_a_start_that_takes_too_long_charges_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    project = shop.open()
    story = shop.start(project, [{"say": "never"}])
    monkeypatch.setattr(agents_conf, "START_SECONDS", 0.0)
    watching.sweep()
    (session,) = shop.sessions(story)
    session = shop.until_ended(session)
    monkeypatch.undo()
    story = shop.fresh(story)
    assert (session.outcome, story.crashes, story.retries, story.held_for) == ("not_started", 0, 0, "")


def test_a_working_copy_that_is_removed_by_hand_ends_its_session_and_the_story_goes_on(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [write("a.txt"), {"say": "ready"}, HANG], [write("b.txt")])
    session = shop.until_line(story, "ready")
    shutil.rmtree(conf.copy_path(session.key))
    session = shop.until_ended(session)
    assert (session.outcome, session.saved) == ("workspace_lost", "") and nothing_is_left_of(session)
    story = shop.until_stage(story, "done")
    assert (shop.repo / "b.txt").exists() and not (shop.repo / "a.txt").exists()
    shop.settled()


@pytest.mark.needs_bubblewrap
def test_the_files_of_a_warned_session_are_kept_and_outlive_its_copy(shop: Shop) -> None:
    project = shop.open()
    limit(shop, max_tool_turns=5)
    first = [
        write("a.txt"),
        {"run": "git commit -q --allow-empty -m mine"},
        *turns(4),
        {"say": "ready"},
        HANG,
    ]
    story = shop.start(project, first, [write("b.txt")])
    session = shop.until_line(story, "ready")

    def kept() -> bool:
        session.refresh_from_db()
        return bool(session.snapshot)

    shop.server.until(kept, what="a snapshot")
    control = conf.control_path(project.key)
    assert paths_changed(control, session.base, session.snapshot) == ["a.txt"]
    shutil.rmtree(conf.copy_path(session.key))
    session = shop.until_ended(session)
    assert (session.outcome, session.saved) == ("workspace_lost", session.snapshot)
    assert read_ref(control, session_ref(session.key)) == session.snapshot
    story = shop.until_stage(story, "done")
    assert (shop.repo / "b.txt").exists() and (shop.repo / "a.txt").exists()
    shop.settled()
    assert read_ref(control, snapshot_ref(session.key)) is None


def test_an_agent_is_told_that_its_limit_is_near_where_its_program_takes_a_message(shop: Shop) -> None:
    project = shop.open()
    limit(shop, max_turns=5)
    story = shop.start(project, [*[usage()] * 4, {"wait_told": 30}, write("a.txt")])
    session = shop.until_line(story, "I was told: A limit of this session is near: 4 of 5 turns")
    assert "Commit what works now" in words(session.process, "text")
    shop.until_stage(story, "done")


def test_an_agent_that_dies_after_good_commits_is_judged_by_the_gate(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [write("a.txt"), {"commit": "All of it"}, {"exit": 1}])
    story = shop.until_stage(story, "done")
    (session,) = shop.sessions(story)
    assert (session.outcome, story.retries) == ("crashed", 0) and "exit code 1" in session.reason
    assert (session.told or {})["kind"] == "crashed" and GateRun.objects.filter(verdict="passed").count() == 2


def test_red_work_of_agents_that_die_uses_up_retries_and_then_crashes(shop: Shop) -> None:
    project = shop.open(max_retries=9)
    die = [{"run": "echo x >> broken"}, {"commit": "Not yet"}, {"exit": 1}]
    story = shop.until_stage(shop.start(project, die), "blocked")
    assert (story.crashes, story.retries) == (3, 2)
    assert "3 sessions ended before their work was done" in story.reason and "did not pass" in story.reason
    shop.settled()


def test_sessions_that_only_read_the_same_files_again_are_blocked_before_the_retries_are_used_up(
    shop: Shop,
) -> None:
    project = shop.open(max_retries=9, files={"b.txt": "b\n"})
    look = [{"read": "README.md"}]
    story = shop.start(project, look, [*look, {"read": "b.txt"}], look)
    story = shop.until_stage(story, "blocked")
    assert [one.outcome for one in shop.sessions(story)] == ["no_change"] * 5
    assert (
        "3 sessions in a row ended without a change and without reading a file that was new" in story.reason
    )
    assert (story.idle_sessions, story.idle_total) == (3, 5)


def test_reading_on_and_on_without_a_change_ends_too(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_conf, "IDLE_IN_ALL", 3)
    files = {f"{n}.txt": f"{n}\n" for n in range(3)}
    project = shop.open(max_retries=0, files=files)
    story = shop.until_stage(shop.start(project, *[[{"read": name}] for name in files]), "blocked")
    assert (story.idle_sessions, story.idle_total) == (0, 3)
    assert "3 sessions ended without a change since a person started it" in story.reason
    stories.perform(story, "unblock", actor=ALICE)
    story = shop.fresh(story)
    assert (story.idle_sessions, story.idle_total, story.retries) == (0, 0, 0)


def test_a_session_that_its_provider_refuses_ends_as_that_and_the_story_follows_the_reset(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = shop.open(coders=2)
    Credential.objects.create(name="team", base_urls=[])
    limit(shop, credential="team")
    reset = int(timezone.now().timestamp()) + 3600
    refused: Step = {"limit": {"status": "rejected", "resets_at": reset}}
    calm = shop.start(project, [{"say": "working"}, wait_for(), write("b.txt")])
    shop.until_line(calm, "working")
    monkeypatch.setattr(agents_conf, "BLOCKED_GRACE_SECONDS", 0.0)
    story = shop.start(project, [{"say": "asking"}, refused, HANG])
    session = ended(shop, story)
    story = shop.fresh(story)
    assert (session.outcome, story.retries, story.crashes) == ("rate_limited", 0, 0)
    credential = Credential.objects.get()
    assert credential.paused_until is not None and int(credential.paused_until.timestamp()) == reset
    assert story.not_before == credential.paused_until
    pool.stop_story(calm, actor=ALICE)
    last = shop.sessions(calm)[0]
    assert shop.until_ended(last).outcome == "stopped", "the other, which was not refused, had gone on"


def test_a_warning_of_the_provider_is_a_flag_and_nothing_stops(shop: Shop) -> None:
    project = shop.open()
    Credential.objects.create(name="team", base_urls=[])
    limit(shop, credential="team")
    soft: Step = {"limit": {"status": "allowed_warning", "resets_at": int(timezone.now().timestamp()) + 60}}
    story = shop.start(project, [soft, {"say": "warned"}, wait_for(), write("a.txt")])
    session = shop.until_line(story, "warned")
    session.refresh_from_db()
    assert session.throttled and Credential.objects.get().throttled_until is not None
    shop.go(session)
    shop.until_stage(story, "done")


@pytest.mark.parametrize("program", ["missing", "not executable"])
def test_a_program_that_is_not_there_pauses_its_runtime_here_and_is_not_tried_again_and_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    (shop.folder / "not executable").write_text("text")
    monkeypatch.setenv("HUSKIES_CLAUDE", str(shop.folder / program))
    project = shop.open()
    Agent.objects.update(runtime="claude-code")
    story = shop.until_stage(shop.start(project, [HANG]), "blocked")
    (session,) = shop.sessions(story)
    assert (session.outcome, story.retries, story.crashes) == ("config", 0, 0)
    assert "Claude Code is not found on this host" in story.reason == RuntimeCheck.objects.get().reason
    second = shop.start(project, [HANG])
    assert "claude-code is unfit on" in second.waiting_for and not shop.sessions(second)
    shop.server.idle()
    assert not Session.objects.live().exists()


def test_an_editor_that_an_agent_opens_is_closed_at_once(shop: Shop) -> None:
    script = [
        write("a.txt"),
        {"run": "git add -A; git commit -q; git commit -q -m One; git commit -q --amend; echo over"},
    ]
    story = shop.until_stage(shop.start(shop.open(), script), "done")
    (session,) = shop.sessions(story)
    assert session.outcome == "done" and (shop.repo / "a.txt").exists()
