"""What the project tells every agent: from its base branch alone, with the places of a template filled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pytest_django import Settings

from agents.models import Credential, Session
from agents.sealing import seal
from agents.services import guidance, plans, pool, prompting
from agents.templates import NAMES, filled
from pipeline import conf
from pipeline.git.command import GitError
from tests import factories
from tests.e2e.shop import Shop, wait_for, write
from tests.factories import ALICE


def test_only_known_places_are_filled_once() -> None:
    values = {"story_id": "{{base_branch}}", "worktree_path": "/c", "base_branch": "main"}
    assert set(values) == set(NAMES)
    text = "#{{story_id}} in {{ worktree_path }} on {{base_branch}}, ${{ secrets.KEY }}, {{story}}"
    assert filled(text, values) == "#{{base_branch}} in /c on main, ${{ secrets.KEY }}, {{story}}"


def test_a_prompt_has_the_agents_own_words_and_the_projects(shop: Shop) -> None:
    agents = [
        {
            "name": "coder-1", "role": "coder", "runtime": "scripted",
            "prompt": "Story {{story_id}} from {{base_branch}}.", "system_prompt": "You live in {{worktree_path}}.",
        }
    ]  # fmt: skip
    files = {
        ".huskies/AGENT.md": "Tabs, never spaces.\n",
        "specs/tech/STACK.md": "the map\n",
        "CLAUDE.md": "see AGENT\n",
    }
    files[".huskies/project.yaml"] = f"agents: {json.dumps(agents)}\n"
    project = shop.open(files=files)
    story = shop.start(
        project, [write(".huskies/AGENT.md", "Obey me.\n"), {"commit": "x"}, {"say": "there"}, wait_for()], []
    )
    session = shop.until_line(story, "there")
    assert "Story 1 from main." in session.prompt and "Tabs, never spaces." in session.prompt
    assert "README.md, CLAUDE.md, specs/tech/STACK.md" in session.prompt
    entry = prompting.filled_entry(session, conf.copy_path(session.key))
    assert entry["system_prompt"] == f"You live in {conf.copy_path(session.key)}."
    pool.stop_story(story, actor=ALICE)
    shop.until_ended(session)
    control = conf.control_path(project.key)
    found = guidance.of(control, session.base)
    assert found.text == "Tabs, never spaces." and found.to_read == (
        "README.md",
        "CLAUDE.md",
        "specs/tech/STACK.md",
    )
    assert guidance.of(control, shop.fresh(story).tip).text == "Obey me.", "and no session asks that commit"


def test_a_repository_that_cannot_be_read_tells_nothing(shop: Shop) -> None:
    project = shop.open()
    assert guidance.of(conf.control_path(project.key), "0" * 40) == guidance.Guidance()
    with pytest.raises(GitError):
        guidance._read(conf.control_path(project.key), "0" * 40)


def test_a_plan_is_masked_and_one_that_was_taken_away_stays(
    transactional_db: None, settings: Settings, tmp_path: Path
) -> None:
    settings.HUSKIES_HOME = tmp_path
    project = factories.project()
    story = factories.story(project)
    key = "sk-ant-api03-" + "x1Y2" * 12
    credential = Credential.objects.create(name="team", sealed=seal(key))
    session = Session(
        story=story, project=project, agent=factories.coder(project), role="coder", runtime="claude-code",
        key=conf.new_key(), fence=1, host=conf.host(), credential=credential,
    )  # fmt: skip
    plans.keep(story, session)
    assert story.plan == ""
    plans.saved_at(session).parent.mkdir(parents=True)
    plans.saved_at(session).write_bytes(f"call it with {key}\0, then rest\xff\n".encode("latin-1"))
    plans.keep(story, session)
    story.refresh_from_db()
    assert story.plan == "call it with [redacted], then rest\ufffd"
    plans.saved_at(session).write_text(" \n")
    plans.keep(story, session)
    session.role = "qa"
    plans.saved_at(session).write_text("what a qa agent leaves there is no plan")
    plans.keep(story, session)
    story.refresh_from_db()
    assert story.plan == "call it with [redacted], then rest\ufffd"
