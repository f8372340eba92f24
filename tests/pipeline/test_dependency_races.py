"""Real processes that edit dependencies at once: two edits never close a circle together, and a story starts once."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.models import Dependency, StageChange, Story
from pipeline.services.dependencies import path
from tests import factories
from tests.racing import together

pytestmark = pytest.mark.django_db(transaction=True)
LINKER = Path(__file__).with_name("linker.py")


def race(edits: list[list[tuple[int, int | None]]]) -> list[dict[str, Any]]:
    """One process for each list of (story, the number it shall wait for), or of (project, None) to promote; all begin together."""
    return together(LINKER, edits, timeout=100)


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
