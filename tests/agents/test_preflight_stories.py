"""When a check is made, and what a story does while a program is unfit: it waits, says why, and goes on by itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from agents.models import Agent, Credential, RuntimeCheck
from agents.services import pool, preflight
from agents.services.assigning import auto_assign
from agents.services.preflight import RECHECK, Verdict
from agents.standin import StandIn
from pipeline import conf, kinds
from pipeline.actors import SERVER, Actor
from pipeline.exceptions import NotAllowed, NotFound
from pipeline.models import Act, Event, Process, Project, Story
from pipeline.services import processes
from tests import factories
from tests.agent_programs import CLAUDE
from tests.agents.working import end, in_coding, session
from tests.e2e.desk import Desk
from tests.e2e.shop import Shop
from tests.factories import ALICE
from tests.pipeline.worlds import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

BROKEN = "#!/bin/sh\necho \"error: unknown option '--verbose'\" >&2\nexit 1\n"


@pytest.fixture
def world(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    settings.HUSKIES_HOME = tmp_path / "data"
    settings.HUSKIES_NO_QUEUE = settings.HUSKIES_PREFLIGHT = settings.HUSKIES_UNCONFINED = True
    monkeypatch.setattr(preflight, "_looked", set())
    monkeypatch.setenv("HUSKIES_CLAUDE", str(put(tmp_path, BROKEN)))
    made = World(tmp_path)
    yield made
    made.close()


def put(folder: Path, text: str) -> Path:
    """The program, replaced as an installer does: under the same name, as another file."""
    fresh = folder / "claude.new"
    fresh.write_text(text)
    fresh.chmod(0o755)
    fresh.replace(folder / "claude")
    return folder / "claude"


@pytest.fixture
def project(world: World) -> Project:
    made = factories.project()
    factories.coder(made, runtime="claude-code", entry={})
    return made


def row_of(name: str = "claude-code") -> RuntimeCheck:
    return RuntimeCheck.objects.select_related("process").get(host=conf.host(), runtime=name)


def concluded(verdict: Verdict, name: str = "claude-code", mark: str | None = None) -> RuntimeCheck:
    """A check of the present program, as if its run had ended so."""
    found = mark or preflight.fingerprint(preflight.get_runtime(name))
    with transaction.atomic():
        return preflight.conclude(preflight.locked(conf.host(), name), verdict, found)


UNFIT = Verdict(preflight.Fitness.UNFIT, "It knows no --verbose.", "Install another.")
FIT = Verdict(preflight.Fitness.FIT)


@pytest.mark.needs_claude
@pytest.mark.needs_bubblewrap
@pytest.mark.on_sqlite
def test_a_story_waits_for_a_broken_program_and_is_done_by_itself_when_that_is_mended(
    shop: Shop, tmp_path: Path, claude_program: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.HUSKIES_PREFLIGHT = True
    monkeypatch.setattr(preflight, "_looked", set())
    monkeypatch.setenv("HUSKIES_CLAUDE", str(put(tmp_path, BROKEN)))
    turns = [{"write": {"path": "button.txt", "content": "new\n"}}, {"text": "Done."}]
    with StandIn([]) as provider:
        desk = Desk(shop, provider, CLAUDE)
        project = desk.open(turns)
        shop.server.until(
            lambda: RuntimeCheck.objects.filter(state="unfit").exists(), what="an unfit program"
        )
        shop.server.idle()
        story = factories.story(project)
        queued = pool.start_story(story, actor=ALICE).queued
        assert f"claude-code is unfit on {conf.host()}: The program ended" in queued
        assert "unknown option" in queued and "Look at /runtimes/" in queued
        put(tmp_path, f'#!/bin/sh\nexec "{claude_program}" "$@"\n')
        story = desk.until_stage(story, "done")
    (session,) = shop.sessions(story)
    assert (session.outcome, story.retries, story.crashes, row_of().state) == ("done", 0, 0, "fit")
    assert Act.objects.filter(verb="runtime.fit", subject=f"runtime claude-code on {conf.host()}").exists()


def test_while_it_is_checked_for_the_first_time_a_story_waits_some_seconds(
    world: World, project: Project
) -> None:
    preflight.check("claude-code", actor=SERVER)
    story = factories.story(project)
    assert "claude-code is being checked on" in pool.start_story(story, actor=ALICE).queued
    assert auto_assign() == 0
    processes.reclaim(row_of().process, "it was not launched")
    assert (row_of().state, "could not be made (it was not launched)" in row_of().reason) == ("unknown", True)
    assert auto_assign() == 1


def test_who_is_fit_and_looked_at_again_is_used_meanwhile(world: World, project: Project) -> None:
    concluded(FIT)
    preflight.check("claude-code", actor=SERVER)
    assert pool.start_story(factories.story(project), actor=ALICE).session is not None


def test_what_a_session_found_holds_until_a_check_finds_it_fit_and_frees_what_it_blocked(
    world: World, project: Project
) -> None:
    concluded(FIT)
    begun = session(in_coding(factories.story(project)), Agent.objects.get())
    unfit = end(begun, "config", "The flag is unknown.", detail="program")
    story = Story.objects.get(pk=unfit.story_id)
    assert (story.stage, story.reason, story.retries) == ("blocked", "The flag is unknown.", 0)
    assert (row_of().state, row_of().told_by_session) == ("unfit", True)
    RuntimeCheck.objects.update(checked_at=timezone.now() - 2 * RECHECK)
    preflight._looked.add("claude-code")
    preflight.sweep()
    assert not Process.objects.filter(kind="preflight").exists(), (
        "the trial was fit already: it waits for a change"
    )
    put(world.folder, BROKEN + "# another file\n")
    preflight.sweep()
    assert Process.objects.filter(kind="preflight").count() == 1
    concluded(FIT)
    story.refresh_from_db()
    assert story.stage == "coding" and not row_of().told_by_session
    assert any(
        "is free again: a check found it fit" in text for text in Event.objects.values_list("text", flat=True)
    )


def test_each_is_checked_at_the_start_and_then_when_something_changed(
    world: World, project: Project, settings: Settings
) -> None:
    factories.coder(project, 2)  # scripted: nothing of it needs a trial
    factories.coder(project, 3, runtime="codex", configured=False)

    def begun() -> bool:
        """Whether a turn of the server begins a check; it is never launched."""
        preflight.sweep()
        live = list(Process.objects.live().filter(kind="preflight"))
        for process in live:
            processes.reclaim(process)
        return bool(live)

    concluded(FIT)
    assert begun(), "fit already, but this server has just started"
    assert not begun()
    assert {row.runtime: row.state for row in RuntimeCheck.objects.all()} == {
        "claude-code": "unknown", "scripted": "fit",
    }  # fmt: skip
    RuntimeCheck.objects.update(checked_at=timezone.now() - 2 * RECHECK)
    assert begun(), "what was not found out is tried again"
    concluded(FIT)
    assert not begun()
    os.utime(world.folder / "claude", (1, 1))
    assert begun(), "another file"
    assert Process.objects.filter(kind="preflight").count() == 2, "and older logs are gone"
    concluded(UNFIT)
    assert not begun()
    settings.HUSKIES_PREFLIGHT = False
    os.utime(world.folder / "claude", (2, 2))
    assert not begun()


def test_what_is_unfit_stays_so_where_a_check_cannot_be_made(world: World, project: Project) -> None:
    concluded(UNFIT)
    row = concluded(Verdict(preflight.Fitness.UNKNOWN, "The disk is full."))
    assert (row.state, row.reason, row.remedy) == ("unfit", "It knows no --verbose.", "Install another.")
    assert concluded(Verdict(preflight.Fitness.UNFIT, "a\0b")).reason == "a\u2400b"
    concluded(FIT)
    assert concluded(Verdict(preflight.Fitness.UNKNOWN, "The disk is full.")).state == "unknown"


def test_the_folders_of_checks_that_are_over_go(world: World, project: Project) -> None:
    (preflight.scratch("old") / "copy").mkdir(parents=True)
    preflight.sweep()
    assert not preflight.scratch("old").exists()


def test_a_check_whose_row_went_on_says_nothing(world: World, project: Project) -> None:
    process = preflight.check("claude-code", actor=SERVER).process
    RuntimeCheck.objects.update(process=None)
    concluded(FIT)
    Process.objects.filter(pk=process.pk).update(state="lost")
    processes.handle_end(process.pk)
    process.refresh_from_db()
    assert (process.state, row_of().state) == ("handled", "fit")
    assert kinds.handler_of(process)


def test_the_trial_gets_no_secret_of_the_servers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HUSKIES_SECRET_KEY",
        "HUSKIES_OLD_SECRET_KEYS",
        "DATABASE_URL",
        "GITHUB_TOKEN",
        "PGPASSWORD",
    ):
        monkeypatch.setenv(name, "do-not-tell")
    process = preflight.check("claude-code", actor=SERVER).process
    order = json.dumps(kinds.handler_of(process).spec(process))
    assert "do-not-tell" not in order and str(world.folder / "claude") in order


def test_a_command_that_is_not_on_this_host_is_waited_for(world: World, project: Project) -> None:
    own = factories.coder(project, 2, runtime="command", entry={"command": ["no-such-agent", "--go"]})
    story = factories.story(project)
    queued = pool.start_story(story, actor=ALICE, agent_name=own.name).queued
    assert queued.startswith("the command 'no-such-agent' of coder-2 is not found on ")
    for command in (["sh", "-c", "true"], ["./mine"], "no-such-agent"):
        own.entry = {"command": command}
        assert preflight.missing_command(own) == ""


def test_who_needs_the_hosts_log_in_waits_for_it_and_it_is_looked_for_each_minute(
    world: World, project: Project
) -> None:
    Credential.objects.create(name="own", kind="host_login")
    Agent.objects.update(entry={"credential": "own"})
    concluded(Verdict(preflight.Fitness.FIT, logged_in=False))
    preflight._looked.add("claude-code")
    story = factories.story(project)
    queued = pool.start_story(story, actor=ALICE).queued
    assert f"claude-code is not logged in on {conf.host()}" in queued and "log in there" in queued
    assert "1 agent needs it" in page_of(factories.person("root", is_superuser=True))
    preflight.sweep()
    assert not Process.objects.filter(kind="preflight").exists()
    RuntimeCheck.objects.update(checked_at=timezone.now() - preflight.LOGIN_RECHECK)
    preflight.sweep()
    assert Process.objects.filter(kind="preflight").count() == 1
    concluded(Verdict(preflight.Fitness.FIT, logged_in=True))
    assert auto_assign() == 1


def page_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.get(reverse("runtimes") + "?part=1").content.decode()


def test_only_an_admin_has_a_program_checked(world: World, project: Project) -> None:
    with pytest.raises(NotAllowed):
        preflight.check("claude-code", actor=Actor("bob", factories.person("bob")))
    with pytest.raises(NotFound, match="There is no runtime 'nope'"):
        preflight.check("nope", actor=SERVER)
    preflight.check("claude-code", actor=Actor("root", factories.person("root", is_superuser=True)))
    assert Act.objects.get(verb="runtime.check").actor == "root"


def test_the_page_shows_what_is_unfit_with_the_remedy_and_has_it_checked(
    world: World, project: Project
) -> None:
    board = reverse("board", args=[project.name])
    hostile = Verdict(preflight.Fitness.UNFIT, "<script>alert(1)</script>\x1b[2J", "Mend <b>it</b>.")
    row = concluded(hostile)
    client, root = Client(), factories.person("root", is_superuser=True)
    client.force_login(root)
    asked = client.get(board).content.decode()
    assert f"claude-code on {conf.host()}" in asked and "<script>alert" not in asked
    shown = client.get(reverse("runtimes")).content.decode()
    assert "&lt;script&gt;alert" in shown and "<script>alert" not in shown and "\x1b" not in shown
    assert "Mend &lt;b&gt;it" in shown and "tested: &gt;=2.1.197" in shown
    assert client.post(reverse("runtime-check"), {"runtime": "claude-code"}).status_code == 302
    part = client.get(reverse("runtimes") + "?part=1").content.decode()
    assert "checking" in part and "<html" not in part
    assert client.post(reverse("runtime-check"), {"runtime": "no\x00pe"}).status_code in (400, 404, 409)
    assert client.post(reverse("pause-lift"), {"runtime": str(row.pk)}).status_code == 302
    assert row_of().state == "unknown"
    bob = Client()
    bob.force_login(factories.person("bob", project, factories.Role.OPERATOR))
    assert "<button" not in bob.get(reverse("runtimes") + "?part=1").content.decode()
    assert 'href="/runtimes/"' in bob.get(reverse("next-steps")).content.decode()
