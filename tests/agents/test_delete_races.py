"""Starts and deletes by real processes at once: whatever begins on a story is stopped with it."""

import pytest

from agents.models import Session
from pipeline.models import Story
from tests import factories
from tests.agents.test_races import RACER, together

pytestmark = pytest.mark.django_db(transaction=True)


def test_of_starts_and_deletes_at_once_no_work_escapes_its_delete():
    project = factories.project()
    for number in range(40):
        factories.coder(project, number)
    stories = [factories.story(project).pk for _ in range(40)]
    orders = [
        {"verb": verb, "stories": pks, "name": f"{verb}-{way}"}
        for verb in ("start", "delete")
        for way, pks in enumerate((stories, stories[::-1]))
    ]
    results = together(RACER, orders, timeout=100)
    assert sum(len(result["granted"]) for result in results[2:]) == 40, "each is deleted by one"
    left = Story.objects.all()
    assert not left.filter(deleting="").exists()
    assert not Session.objects.filter(stop_requested_at=None).exists()
    assert set(Session.objects.values_list("story_id", flat=True)) == set(left.values_list("pk", flat=True))
