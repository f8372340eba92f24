"""A command of one's own works a story."""

import json

import pytest

from agents.services import pool
from tests import factories
from tests.e2e.shop import CHECK, Shop
from tests.factories import ALICE

pytestmark = pytest.mark.needs_bubblewrap

# Red first, and mended when the prompt says why.
WORK = 'prompt=$(cat); case "$prompt" in *"the button is missing"*) rm broken;; *) touch broken button.txt;; esac; echo "$1"'


def test_its_prompt_is_the_story_then_the_red_gate_and_its_work_lands(shop: Shop) -> None:
    agent = {
        "name": "coder-1",
        "runtime": "command",
        "command": ["sh", "-c", WORK, "sh"],
        "args": ["I am done."],
    }
    text = json.dumps({"agents": [agent], "gate": {"command": "sh check.sh"}, "max_retries": 1})
    project = shop.open(files={".huskies/project.yaml": text, "check.sh": CHECK})
    story = factories.story(project, title="Add a button")
    pool.start_story(story, actor=ALICE)
    story = shop.until_stage(story, "done")
    first, second = shop.sessions(story)
    assert (first.outcome, second.outcome, story.retries) == ("done", "done", 1)
    assert "Add a button" in first.prompt and "the button is missing" in second.prompt
    assert (shop.repo / "button.txt").exists() and not (shop.repo / "broken").exists()
    shop.until_line(story, "I am done.")
    shop.settled()
