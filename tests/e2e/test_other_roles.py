"""A qa agent looks at green work, a mergemaster mends what would not merge: they attach, never move a story by their start, their work is kept."""

import json

import pytest

from agents.exceptions import WrongStage
from agents.services import pool
from pipeline.services import stories
from tests.e2e.shop import CHECK, Shop, project_file, wait_for, write
from tests.factories import ALICE, commit_files


def with_agent(name: str, role: str, *turns, **more) -> dict[str, str]:
    """The shop's project file with one agent more, which plays a script of its own."""
    entry = {"name": name, "role": role, "runtime": "scripted", "script": {"turns": list(turns)}}
    text = project_file(**more).replace("gate:\n", f"  - {json.dumps(entry)}\ngate:\n", 1)
    return {".huskies/project.yaml": text, "check.sh": CHECK}


def test_a_qa_agent_looks_once_and_a_person_decides(shop: Shop) -> None:
    look = [{"say": "I looked at it"}, write("qa-was-here.txt")]
    project = shop.open(files=with_agent("qa-1", "qa", look, default_qa="agent"))
    story = shop.start(project, [write("a.txt")])
    with pytest.raises(WrongStage, match="qa-1 is a QA agent"):
        pool.start_story(story, actor=ALICE, agent_name="qa-1")
    shop.server.until(lambda: "has looked at it" in shop.fresh(story).waiting_for, what="the look")
    shop.server.idle()
    story = shop.fresh(story)
    coder, qa = shop.sessions(story)
    assert (coder.role, qa.role, qa.outcome, story.stage) == ("coder", "qa", "done", "qa")
    assert qa.began_at_commit == coder.saved == story.tip, (
        "it looked at the coder's work, and changed none of it"
    )
    assert qa.saved not in ("", story.tip), "what it left is kept under its own session"
    assert (
        story.waiting_for
        == f"qa-1 (session {qa.pk}) has looked at it: read what it says, then approve or reject it."
    )
    stories.perform(story, "approve", actor=ALICE)
    shop.until_stage(story, "done")
    assert (shop.repo / "a.txt").exists() and not (shop.repo / "qa-was-here.txt").exists()
    assert len(shop.sessions(story)) == 2
    shop.settled()


def test_a_persons_verdict_stops_a_qa_agent_at_work(shop: Shop) -> None:
    project = shop.open(files=with_agent("qa-1", "qa", [{"say": "looking"}, wait_for()], default_qa="agent"))
    story = shop.start(project, [write("a.txt")], [write("b.txt")])
    story = shop.until_stage(story, "qa")
    qa = shop.until_line(story, "looking")
    stories.perform(story, "reject", actor=ALICE, why="One more file.")
    shop.until_ended(qa)
    assert qa.outcome == "stopped"
    shop.server.until(
        lambda: len(shop.sessions(story)) >= 3 and shop.fresh(story).stage == "qa", what="the second work"
    )
    assert shop.fresh(story).held_for == ""


def test_a_mergemaster_mends_a_conflict_and_it_is_merged_again(shop: Shop) -> None:
    mend = [{"run": "git merge -q -s ours --no-edit main"}, write("README.md", "both\n"), {"commit": "Both"}]
    project = shop.open(files=with_agent("mergemaster", "mergemaster", mend))
    story = shop.start(project, [{"say": "ready"}, wait_for(), write("README.md", "ours\n")])
    session = shop.until_line(story, "ready")
    commit_files(shop.repo, {"README.md": "theirs\n"}, "meanwhile")
    shop.go(session)
    story = shop.until_stage(story, "merge_failure")
    shop.server.idle()
    pool.start_story(story, actor=ALICE, agent_name="mergemaster")
    assert shop.fresh(story).stage == "merge_failure", "its start moves nothing"
    story = shop.until_stage(story, "done")
    assert (shop.repo / "README.md").read_text() == "both\n"
    assert [s.role for s in shop.sessions(story)] == ["coder", "mergemaster"]
    shop.settled()
