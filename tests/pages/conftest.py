"""A small town for page tests: one project with something of everything, one other project, a person of each role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from agents.models import PermissionRequest, Session
from pipeline import conf
from pipeline.live.tail import tail
from pipeline.models import Criterion, GateRun, Process, Project, ProjectVersion, Story
from pipeline.roles import Role
from tests import factories
from tests.logs import add_events


@dataclass
class Town:
    web: Project
    story: Story
    criterion: Criterion
    session: Session
    asked: PermissionRequest
    process: Process
    gate: GateRun
    proposed: ProjectVersion
    people: dict[str, User]


def log_line(process: Process, text: str, kind: str = "line") -> None:
    """One more event of a process's log, numbered as its single writer would."""
    process.last_seq += 1
    add_events(process.pk, process.last_seq, text, kind=kind)
    Process.objects.filter(pk=process.pk).update(last_seq=process.last_seq)


def log_lines(process: Process, count: int) -> None:
    for n in range(count):
        log_line(process, f"line {n}")


def build(text: str = "Add a button") -> Town:
    web, other = factories.project("web"), factories.project("other")
    control = conf.control_path(web.key)
    source = factories.repository(conf.home() / "source")
    control.parent.mkdir(parents=True)
    factories.git("clone", "-q", "--bare", str(source), str(control), cwd=source)
    web.tip = factories.git("rev-parse", "HEAD", cwd=source)
    web.save()
    row = factories.story(web, text, description=text, criteria=[text])
    agent = factories.coder(web)
    process = Process.objects.create(
        key=conf.new_key(), kind="agent", host="h", project=web, story=row, state="running"
    )
    log_line(process, text)
    session = Session.objects.create(
        story=row,
        project=web,
        agent=agent,
        role="coder",
        runtime="scripted",
        key=conf.new_key(),
        fence=1,
        host="h",
        state="running",
        process=process,
        conversation="c",
        prompt=text,
    )
    asked = PermissionRequest.objects.create(
        session=session,
        request_id="r1",
        tool="Bash",
        subject=text,
        arguments={"command": text},
        text=text,
        asked_at=timezone.now(),
        deadline=timezone.now() + timedelta(minutes=10),
    )
    gate = GateRun.objects.create(
        story=row,
        purpose="coding",
        commit="1" * 40,
        tree="2" * 40,
        gate_hash="3",
        command=text,
        fence=2,
        state="over",
        verdict="failed",
        reason=text,
        output=text,
        process=process,
    )
    proposed = ProjectVersion.objects.create(
        project=web, blob="b", commit="c", text=text, gate_hash="x", state="proposed", needs=[text]
    )
    people = {role.label: factories.person(role.label, web, role) for role in Role}
    people["stranger"] = factories.person("stranger", other, Role.ADMIN)
    people["root"] = factories.person("root", is_superuser=True, is_staff=True)
    return Town(web, row, row.criteria.get(), session, asked, process, gate, proposed, people)


@pytest.fixture(autouse=True)
def cheap_passwords(settings: Settings) -> None:
    """A million rounds for each person of each test would be most of the time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def prepare(folder: Path, settings: Settings) -> None:
    """A data folder of the test's own, and passwords that cost nothing to hash: no test here is about hashing."""
    settings.HUSKIES_HOME = folder / "data"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def town(db: None, tmp_path: Path, settings: Settings) -> Town:
    prepare(tmp_path, settings)
    return build()


@pytest.fixture
def live_town(transactional_db: None, tmp_path: Path, settings: Settings) -> Town:
    """The same, committed: sockets read it on connections of their own."""
    prepare(tmp_path, settings)
    return build()


@pytest.fixture
async def no_tail_is_left(transactional_db: None) -> AsyncIterator[None]:
    """The thread ends with the last listener, so that no connection outlives its test: looked at while the database may still be used."""
    yield
    thread = tail.thread
    if thread is not None:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
