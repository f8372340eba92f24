"""The commands around agents, limits and budgets, and the story's verbs that came with them."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from agents.models import Credential, Limit, RuntimeCheck, Session
from pipeline import conf
from pipeline.datafolder import prepare
from pipeline.models import Act, Project, StageChange, Story
from tests import factories
from tests.logs import add_events

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    prepare(conf.home())
    made = factories.project()
    factories.coder(made)
    return made


def run(*words: str) -> Any:
    out = io.StringIO()
    call_command(*words, "--json", stdout=out, stderr=io.StringIO())
    return json.loads(out.getvalue())


def say(*words: str) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_an_agent_is_started_on_a_story_stopped_and_the_story_is_held(project: Project) -> None:
    run("story", "create", "Add power")
    started = run("agent", "start", "coder-1", "1")
    assert (started["state"], started["story"], started["queued"]) == ("working", "web/1", None)
    assert run("agent", "list")[0]["session"] == started["session"]
    with pytest.raises(CommandError, match="already being worked on by coder-1"):
        run("agent", "start", "web/coder-1", "web/1")
    run("agent", "stop", "coder-1", "--why", "wrong way")
    assert "stopped by" in run("story", "show", "1")["waiting_for"]
    assert StageChange.objects.filter(verb="stop", why="wrong way").exists()


def test_an_agent_is_paused_and_resumed(project: Project) -> None:
    paused = run("agent", "pause", "coder-1", "--why", "the bill")
    assert (paused["state"], paused["why"]) == ("paused", "Paused by the command line: the bill")
    run("story", "create", "Add power")
    assert "the bill" in run("agent", "start", "coder-1", "1")["queued"]
    assert run("agent", "resume", "coder-1")["state"] == "free"
    with pytest.raises(CommandError, match="not paused"):
        run("agent", "resume", "coder-1")
    assert "coder-1" in say("agent", "list")


def test_a_story_is_assigned_to_a_coder(project: Project) -> None:
    factories.coder(project, 2)
    run("story", "create", "Add power")
    assert run("agent", "assign", "coder-2", "1")["story"] == "web/1"
    assert Story.objects.get().preferred_agent == "coder-2"
    for words in (("assign", "nobody", "1"), ("pause", "web/nobody"), ("stop", "coder-9")):
        with pytest.raises(CommandError, match="There is no agent"):
            run("agent", *words)
    with pytest.raises(CommandError, match="There is no story 7"):
        run("agent", "assign", "coder-2", "7")


def test_output_and_the_end_of_an_agents_session_are_read_by_its_name(project: Project) -> None:
    with pytest.raises(CommandError, match="has not worked yet"):
        run("agent", "output", "coder-1")
    run("story", "create", "Add power")
    run("agent", "start", "coder-1", "1")
    session = Session.objects.get()
    add_events(session.process_id or 0, 1, "line 1", "line 2", "line 3", kind="text")
    assert [event["seq"] for event in run("agent", "output", "coder-1", "--from", "2")] == [2, 3]
    assert say("agent", "output", "coder-1") == "line 1\nline 2\nline 3\n"
    for who in (("agent", "wait", "coder-1"), ("session", "wait", str(session.pk)), ("story", "wait", "1")):
        with pytest.raises(CommandError, match=r"has not ended within 0.01 s"):
            run(*who, "--timeout", "0.01")
    Session.objects.update(state="ended", outcome="crashed", reason="It fell over.", ended_at=timezone.now())
    report = run("agent", "wait", "coder-1")
    assert (report["outcome"], report["reason"], report["story"]) == ("crashed", "It fell over.", "web/1")
    assert report["output"].endswith("line 3") and report["gate"] is None
    assert "outcome: crashed" in say("session", "wait", str(session.pk))
    followed = io.StringIO()
    call_command("agent", "output", "coder-1", "--follow", "--json", stdout=followed)
    assert [json.loads(line)["seq"] for line in followed.getvalue().splitlines()] == [1, 2, 3]


def test_limits_are_set_listed_and_cleared(project: Project) -> None:
    Limit.objects.all().delete()
    assert run("limit", "set", "project", "2", "--name", "web") == {
        "scope": "project",
        "name": "web",
        "most": 2,
    }
    run("limit", "set", "server", "5", "--why", "a small machine")
    listed = {(row["scope"], row["name"]): row for row in run("limit", "list")}
    assert listed["project", "web"] | {"note": None} == {
        "scope": "project", "name": "web", "most": 2, "used": 0, "note": None,
    }  # fmt: skip
    assert listed["server", None]["most"] == 5
    assert "web" in say("limit", "list", "--project", "web")
    assert say("limit", "clear", "project", "--name", "web") == "The limit on project web is gone.\n"
    with pytest.raises(CommandError, match="nothing to take away"):
        run("limit", "clear", "project", "--name", "web")
    with pytest.raises(CommandError, match="no project 'shop'"):
        run("limit", "set", "project", "2", "--name", "shop")
    assert [act.actor for act in Act.objects.all()] == ["the command line"] * 3


def test_budgets_are_set_listed_and_cleared(project: Project) -> None:
    made = run("budget", "set", "project", "--name", "web", "--usd", "12.5", "--tokens", "1000")
    assert made == {"scope": "project", "name": "web", "period": "day", "usd": "12.500000", "tokens": 1000}
    assert run("budget", "list")[0]["spent_usd"] == "0.000000"
    assert "12.500000" in say("budget", "list")
    for words, said in (
        (("--usd", "lots"), "no amount"),
        ((), "limits something"),
        (("--usd", "-1"), "between 0"),
    ):
        with pytest.raises(CommandError, match=said):
            run("budget", "set", "project", "--name", "web", *words)
    run("budget", "clear", "project", "--name", "web")
    assert run("budget", "list") == []


def test_a_story_has_a_priority_and_dependencies_and_can_be_edited(project: Project) -> None:
    run("story", "create", "First")
    run(
        "story",
        "create",
        "Second",
        "--depends",
        "1",
        "--priority",
        "3",
        "--agent",
        "coder-1",
        "--any-agent-after",
        "30",
    )
    row = Story.objects.get(number=2)
    assert (row.priority, row.any_agent_after, [d.number for d in row.dependencies.all()]) == (3, 30, [1])
    assert run("story", "depends", "2", "none")["depends_on"] == []
    assert run("story", "depends", "2", "#1")["depends_on"] == [1]
    with pytest.raises(CommandError, match="names no stories"):
        run("story", "depends", "2", "one")
    with pytest.raises(CommandError):
        run("story", "depends", "1", "2")  # a circle
    assert run("story", "priority", "2", "5")["priority"] == 5
    assert run("story", "edit", "2", "--title", "Third", "--any-agent-after", "never")["title"] == "Third"
    row.refresh_from_db()
    assert (row.title, row.priority, row.any_agent_after, row.preferred_agent) == (
        "Third",
        5,
        None,
        "coder-1",
    )
    with pytest.raises(CommandError, match="Say what to change"):
        run("story", "edit", "2")


def test_deleting_a_story_must_be_meant(project: Project) -> None:
    run("story", "create", "First")
    with pytest.raises(CommandError, match="Say --yes if you mean it"):
        run("story", "delete", "1")
    assert run("story", "delete", "1", "--yes") == {"story": "web/1", "deleted": True}
    assert not Story.objects.exists()
    run("story", "create", "Another")
    assert Story.objects.get().number == 2


def test_a_paused_key_and_a_paused_program_go_on_when_a_person_says_so(project: Project) -> None:
    Credential.objects.create(name="main", paused_for="the account has no money left")
    RuntimeCheck.objects.create(host=conf.host(), runtime="claude-code", state="unfit", reason="unknown flag")
    assert run("credential", "resume", "main")["paused_for"] is None
    run("credential", "resume", "--runtime", "claude-code")
    assert RuntimeCheck.objects.get().state == "unknown"
    for words in (("main",), ("nobody",), ("--runtime", "claude-code")):
        with pytest.raises(CommandError, match=r"not paused|There is no credential"):
            run("credential", "resume", *words)
    assert [act.verb for act in Act.objects.order_by("id")] == ["credential.lift", "runtime.lift"]
