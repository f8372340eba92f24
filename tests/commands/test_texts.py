"""Text that a database cannot store is refused by name, on both databases, before anything is written."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from agents.services import credentials
from pipeline import conf
from pipeline.exceptions import BadInput
from pipeline.models import Project, StageChange, Story
from pipeline.services import members, projects, stories
from tests import factories
from tests.factories import ALICE

pytestmark = pytest.mark.django_db(transaction=True)
HOSTILE = ["a\x00b", "a\udcffb"]


@pytest.fixture
def story() -> Story:
    factories.capacity()
    project = Project.objects.create(
        name="web", key=conf.new_key(), source="/srv/web", state="ready", tip="a" * 40, base_branch="main"
    )
    return factories.story(project)


CALLS: dict[str, Callable[[Story, str], object]] = {
    "title": lambda story, text: stories.create_story(story.project, title=text, actor=ALICE),
    "description": lambda story, text: stories.create_story(
        story.project, title="A", description=text, actor=ALICE
    ),
    "criterion": lambda story, text: stories.create_story(
        story.project, title="A", criteria=[text], actor=ALICE
    ),
    "edit": lambda story, text: stories.edit_story(story, description=text, actor=ALICE),
    "edited criterion": lambda story, text: stories.edit_story(story, criteria=[text], actor=ALICE),
    "reason": lambda story, text: stories.perform(story, "block", why=text, actor=ALICE),
    "freeze": lambda story, text: stories.perform(story, "freeze", why=text, actor=ALICE),
    "member": lambda story, text: members.set_role(story.project, text, 1, actor=ALICE),
    "project": lambda story, text: projects.add_project(str(Path.cwd()), name=text, actor=ALICE),
    "address": lambda story, text: projects.add_project(f"/srv/{text}", actor=ALICE),
    "credential": lambda story, text: credentials.add_credential(
        text, kind="api_key", value="k" * 20, actor=ALICE
    ),
    "command": lambda story, text: call_command("story", "block", story.label, text),
    "filter": lambda story, text: call_command("story", "list", "--project", text),
}


@pytest.mark.parametrize("text", HOSTILE, ids=["NUL", "half a character"])
@pytest.mark.parametrize("call", CALLS)
def test_text_that_cannot_be_stored_is_refused_and_nothing_is_written(
    story: Story, call: str, text: str
) -> None:
    before = StageChange.objects.count()
    with pytest.raises((BadInput, CommandError), match=r"NUL|UTF-8|not valid text"):
        CALLS[call](story, text)
    story.refresh_from_db()
    assert (story.stage, story.frozen, StageChange.objects.count()) == ("backlog", False, before)
    assert Story.objects.count() == Project.objects.count() == 1


def test_bytes_on_the_command_line_that_are_no_text_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text("k" * 50)
    done = subprocess.run(
        [sys.executable, "manage.py", "login-link", b"\xff"],
        env={**os.environ, "HUSKIES_HOME": str(tmp_path), "DJANGO_SETTINGS_MODULE": "huskies_site.settings"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr.startswith("huskies: The value of name is not valid UTF-8")
        and done.stderr.count("\n") == 1
    )
