"""Rows and repositories for tests, made the way the house makes them where that matters."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from agents.models import Agent, Limit
from pipeline import conf
from pipeline.actors import Actor
from pipeline.models import Capacity, Membership, Project, ProjectVersion, Story
from pipeline.projectfile import ProjectFile, gate_hash, registered_sections
from pipeline.roles import Role
from pipeline.services.stories import create_story

ALICE = Actor("alice")


def git(*words: str, cwd: Path) -> str:
    """git as a person has it, without this machine's settings."""
    env = {
        "PATH": __import__("os").environ["PATH"],
        "HOME": str(cwd),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "Alice",
        "GIT_AUTHOR_EMAIL": "alice@example.invalid",
        "GIT_COMMITTER_NAME": "Alice",
        "GIT_COMMITTER_EMAIL": "alice@example.invalid",
    }
    return subprocess.run(
        ["git", *words], cwd=cwd, env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


def repository(folder: Path, files: dict[str, str] | None = None) -> Path:
    """A checked-out repository on `main` with one commit."""
    folder.mkdir(parents=True)
    git("init", "-q", "-b", "main", cwd=folder)
    commit_files(folder, files or {"README.md": "hello\n"}, "first")
    return folder


def commit_files(folder: Path, files: dict[str, str], message: str) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", message, cwd=folder)
    return git("rev-parse", "HEAD", cwd=folder)


def capacity(limit: int = 100) -> Capacity:
    Limit.objects.update_or_create(scope="server", defaults={"most": limit})
    return Capacity.objects.get_or_create(pk=1)[0]


def project(name: str = "web", **values: Any) -> Project:
    """A ready project in the database alone: for tests that start no child."""
    capacity()
    row = Project.objects.create(
        name=name,
        key=conf.new_key(),
        source="/nowhere",
        state="ready",
        base_branch="main",
        tip="1" * 40,
        **{"unconfined_allowed": True, **values},
    )
    file = ProjectFile.default(registered_sections())
    row.version = ProjectVersion.objects.create(
        project=row,
        blob="none",
        commit=row.tip,
        data=file.to_json(),
        gate_hash=gate_hash(file),
        state="active",
    )
    row.save()
    return row


def coder(project: Project, number: int = 1, **values: Any) -> Agent:
    return Agent.objects.create(
        project=project,
        position=number,
        **{
            "name": f"coder-{number}",
            "role": "coder",
            "runtime": "scripted",
            "entry": {"script": [["say", "hi"]]},
            **values,
        },
    )


def story(project: Project, title: str = "Add a button", **values: Any) -> Story:
    return create_story(project, title=title, actor=ALICE, **values)


def person(name: str, project: Project | None = None, role: Role | None = None, **values: Any) -> User:
    user = User.objects.create_user(name, password="a long pass phrase", **values)
    if project is not None and role is not None:
        Membership.objects.create(project=project, user=user, role=role)
    return user
