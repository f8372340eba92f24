"""Real processes that edit dependencies at once: two edits never close a circle together, and a story starts once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, connections

from pipeline.models import Dependency, StageChange, Story
from pipeline.services.dependencies import path
from tests import databases, factories

pytestmark = pytest.mark.django_db(transaction=True)
LINKER = Path(__file__).with_name("linker.py")
ROOT = Path(__file__).resolve().parents[2]


def race(edits: list[list[tuple[int, int | None]]]) -> list[dict[str, Any]]:
    """One process for each list of (story, the number it shall wait for), or of (project, None) to promote; all begin together."""
    name = str(connection.settings_dict["NAME"])
    url = f"sqlite:///{name}" if connection.vendor == "sqlite" else databases.postgresql_url(name)
    connections.close_all()
    env = {
        **os.environ,
        "DATABASE_URL": url,
        "HUSKIES_HOME": str(settings.HUSKIES_HOME),
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "huskies_site.settings",
    }
    racers = [
        subprocess.Popen(
            [sys.executable, str(LINKER), json.dumps(each)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=ROOT,
        )
        for each in edits
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
    assert [result["errors"] for result in results] == [[]] * len(racers)
    return results


def test_edits_at_once_never_close_a_circle_together():
    project = factories.project()
    pairs = [(factories.story(project), factories.story(project)) for _ in range(25)]
    there = [(one.pk, two.number) for one, two in pairs]
    back = [(two.pk, one.number) for one, two in pairs]
    results = race([there, back, there, back])
    edges: dict[int, list[int]] = {}
    for waits, on in Dependency.objects.values_list("story_id", "on_id"):
        assert on is not None
        edges.setdefault(waits, []).append(on)
    assert len(edges) == 25, "of each pair one waits for the other"
    assert not any(path(edges, on, waits) for waits, found in edges.items() for on in found)
    assert sum(result["refused"] for result in results) == 2 * 25


def test_a_story_is_started_once_by_many():
    project = factories.project()
    first = factories.story(project)
    for _ in range(10):
        factories.story(project, depends_on=[1])
    Story.objects.filter(pk=first.pk).update(stage="archived")
    results = race([[(project.pk, None)] * 3] * 4)
    assert sum(result["made"] for result in results) == 10
    assert (
        StageChange.objects.filter(verb="deps_met").count()
        == 10
        == Story.objects.filter(stage="coding").count()
    )
