"""`doctor`: one line per lie, exit code 1 if there is one, and what this machine has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.utils import timezone
from pytest_django import Settings

from agents.runtimes import RUNTIMES
from huskies_site import doctoring
from pipeline import conf
from pipeline.models import Host, Project, Story
from tests import factories


@pytest.mark.django_db(transaction=True)
def test_the_command_prints_one_line_per_lie_and_ends_with_1() -> None:
    factories.capacity()
    story = factories.story(factories.project())
    Project.objects.update(state="preparing")  # it has no repository that could be looked into
    Story.objects.filter(pk=story.pk).update(stage="done", landed="1" * 40)
    for words, wanted in (
        ([], "R3 story web/1: it is done, but no merge of it landed.\n"),
        (
            ["--json"],
            [{"rule": "R3", "subject": "story web/1", "sentence": "it is done, but no merge of it landed."}],
        ),
    ):
        said = StringIO()
        with pytest.raises(SystemExit) as end:
            call_command("doctor", "--settle", "0", *words, stdout=said)
        assert end.value.code == 1
        found = json.loads(said.getvalue()) if words else said.getvalue().splitlines(keepends=True)[0]
        assert found == wanted


@pytest.mark.django_db(transaction=True)
def test_a_sane_world_is_said_to_be_sane_with_0_and_an_empty_list(settings: Settings, tmp_path: Path) -> None:
    settings.HUSKIES_HOME = tmp_path
    factories.capacity()
    said, as_json = StringIO(), StringIO()
    call_command("doctor", stdout=said)
    call_command("doctor", "--json", stdout=as_json)
    assert said.getvalue().startswith(
        "Database, logs, git and processes tell the same.\nThe server does not run here"
    )
    assert json.loads(as_json.getvalue()) == []


@pytest.mark.django_db(transaction=True)
def test_the_environment_lists_what_this_machine_has() -> None:
    factories.capacity()
    said = StringIO()
    call_command("doctor", "--environment", "--json", stdout=said)
    pieces = {piece["name"]: piece for piece in json.loads(said.getvalue())}
    assert set(pieces) == {"python", "git", "confinement", "database", "server", *RUNTIMES}
    assert pieces["python"]["found"] == ".".join(map(str, sys.version_info[:3]))
    assert pieces["confinement"]["found"] == "bubblewrap" or pieces["confinement"]["remedy"]
    assert "not an AI" in pieces["scripted"]["found"]
    assert pieces["server"]["remedy"] == "Start it with `./huskies up`."
    Host.objects.update_or_create(name=conf.host(), defaults={"seen_at": timezone.now()})
    assert [p.found for p in doctoring.environment() if p.name == "server"] == [f"running on {conf.host()}"]


def test_before_the_first_up_the_environment_is_told_and_the_rest_says_what_to_do(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HUSKIES_HOME": str(tmp_path / "none"), "DATABASE_URL": ""}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "manage.py", "doctor", *words]
        return subprocess.run(
            argv,
            cwd=django_settings.BASE_DIR,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    told = run("--environment")
    assert told.returncode == 1 and told.stderr == ""
    assert "Start the server once with `./huskies up`" in told.stdout and "git: " in told.stdout
    refused = run()
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.startswith("huskies: There is no huskies at") and refused.stderr.count("\n") == 1
