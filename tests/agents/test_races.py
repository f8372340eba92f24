"""Real processes at once: grants are counted, not only final states."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, connections

from agents.models import Session
from pipeline.models import StageChange, Story
from tests import databases, factories

pytestmark = pytest.mark.django_db(transaction=True)
RACER = Path(__file__).with_name("racer.py")
ROOT = Path(__file__).resolve().parents[2]


def database_url() -> str:
    name = str(connection.settings_dict["NAME"])
    return f"sqlite:///{name}" if connection.vendor == "sqlite" else databases.postgresql_url(name)


def race(verb: str, stories: list[list[int]]) -> list[dict[str, Any]]:
    """One process for each list of stories; all begin together."""
    connections.close_all()
    env = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "HUSKIES_HOME": str(settings.HUSKIES_HOME),
        "PYTHONPATH": str(ROOT),
    }
    env["DJANGO_SETTINGS_MODULE"] = "huskies_site.settings"
    racers = [
        subprocess.Popen(
            [sys.executable, str(RACER), json.dumps({"verb": verb, "stories": pks, "name": f"racer-{n}"})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=ROOT,
        )
        for n, pks in enumerate(stories)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        results = [json.loads(racer.communicate(timeout=100)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert [r["errors"] for r in results] == [[]] * len(racers)
    return results


def test_eight_processes_start_two_hundred_stories_with_sixteen_agents_and_sixteen_are_granted():
    project = factories.project()
    for number in range(16):
        factories.coder(project, number)
    stories = [factories.story(project).pk for _ in range(200)]
    results = race("start", [stories[n:] + stories[:n] for n in range(0, 200, 25)])
    granted = [pk for result in results for pk in result["granted"]]
    assert len(granted) == len(set(granted)) == 16 == Session.objects.count()
    live = Session.objects.values_list("agent_id", "story_id")
    assert (
        max(Counter(agent for agent, _ in live).values())
        == 1
        == max(Counter(story for _, story in live).values())
    )
    assert sum(int(r["waits"]) for r in results) == 184
    assert sum(int(r["refused"]) for r in results) == 8 * 200 - 200
    assert (
        StageChange.objects.filter(verb="start").count()
        == 200
        == Story.objects.filter(stage="coding").count()
    )


def test_a_limit_of_ten_is_exact_with_eight_processes():
    project = factories.project()
    factories.capacity(10)
    for number in range(16):
        factories.coder(project, number)
    stories = [factories.story(project).pk for _ in range(40)]
    results = race("start", [stories[n::8] for n in range(8)])
    assert sum(len(r["granted"]) for r in results) == 10 == Session.objects.live().count()


def test_eight_processes_start_one_story_and_one_wins():
    project = factories.project()
    factories.coder(project, 1)
    factories.coder(project, 2)
    story = factories.story(project).pk
    results = race("start", [[story]] * 8)
    assert sum(len(r["granted"]) for r in results) == 1
    assert sum(int(r["refused"]) for r in results) == 7


def test_eight_processes_move_one_story_and_one_wins_with_one_history_row():
    story = factories.story(factories.project())
    results = race("archive", [[story.pk]] * 8)
    assert sum(len(r["granted"]) for r in results) == 1
    assert StageChange.objects.filter(verb="archive").count() == 1
