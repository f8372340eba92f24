"""What scripts read of stories, while agents come and go."""

import pytest
from django.db import connection

from agents.services import pool
from agents.shapes import work_of
from tests import factories
from tests.factories import ALICE

pytestmark = pytest.mark.django_db


def test_a_session_that_is_claimed_between_two_queries_of_a_list_breaks_nothing():
    project = factories.project()
    factories.coder(project)
    story = factories.story(project)
    looks = 0

    def claim_after_the_first_look(execute, sql, params, many, context):
        nonlocal looks
        answer = execute(sql, params, many, context)
        looks += 1
        if looks == 1:
            assert pool.start_story(story, actor=ALICE).session is not None
        return answer

    with connection.execute_wrapper(claim_after_the_first_look):
        assert work_of([story]) == {}
    assert work_of([story])[story.pk]["agent"] == "coder-1"
