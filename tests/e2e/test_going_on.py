"""A second session of a story: warm with news, or cold in the same session when the conversation is not there any more."""

from __future__ import annotations

import shutil

from agents.models import Session
from agents.services import pool
from pipeline import conf
from pipeline.models import Story
from tests import factories
from tests.e2e.shop import Shop, wait_for, write
from tests.factories import ALICE

WAITS = [{"say": "I begin"}, wait_for()]
WORKS = [write("a.txt", "a\n")]


def stopped_once(shop: Shop) -> tuple[Story, Session]:
    project = shop.open()
    story = shop.start(project, WAITS, WORKS)
    first = shop.until_line(story, "I begin")
    assert first.resume_note == "cold: there is no conversation of coder-1 on this story yet"
    pool.stop_story(story, actor=ALICE, why="wait")
    shop.until_ended(first)
    shop.server.idle()
    return shop.fresh(story), first


def test_a_session_that_goes_on_is_told_what_happened_meanwhile_and_says_that_it_is_warm(shop: Shop) -> None:
    story, first = stopped_once(shop)
    factories.story(story.project, title="Another")
    pool.start_story(story, actor=ALICE)
    shop.until_stage(story, "done")
    second = shop.sessions(story)[-1]
    assert second.resume_note == f"warm: it goes on with the conversation of session {first.pk}"
    assert second.prompt.startswith("Recent events in the project")
    head, _, rest = second.prompt.partition("\n\n")
    assert [line.partition(" UTC ")[2] for line in head.splitlines()[2:-1]] == [
        "alice stopped #1",
        "alice wrote #2",
    ]
    assert "Recent events" not in rest and "Title of story" not in rest
    assert "Recent events" not in first.prompt


def test_a_conversation_that_is_gone_makes_the_same_session_begin_anew_without_charge(shop: Shop) -> None:
    story, first = stopped_once(shop)
    shutil.rmtree(conf.session_path(first.key))
    story.description = shop.fresh(story).description
    pool.start_story(story, actor=ALICE)
    shop.until_line(story, "I begin")
    second = shop.sessions(story)[-1]
    assert second.resume_note == f"cold: the conversation of session {first.pk} is not on this host"
    assert not second.resumed and "Title of story" in second.prompt
    assert (shop.fresh(story).retries, shop.fresh(story).crashes) == (0, 0)
