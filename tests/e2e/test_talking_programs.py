"""The real programs that take words while they work are asked, allowed, denied, spoken to and interrupted."""

from __future__ import annotations

import pytest

from agents.models import PermissionRequest
from agents.models.permission import Asking
from agents.services import permissions, talking, telling
from pipeline.actors import Actor
from pipeline.models import Story
from tests.agent_programs import CLAUDE, CODEX, programs
from tests.e2e.desk import Desk
from tests.factories import ALICE
from tests.logs import body, events

pytestmark = pytest.mark.timeout(180)
BOB = Actor("bob")
TOOLS = {CLAUDE: ("Bash", "Write", "content"), CODEX: ("shell", "edit", "diff")}
"""A program's names for its shell, for its tool that writes files, and for what is written."""


def asked(desk: Desk, story: Story, number: int) -> PermissionRequest:
    rows = PermissionRequest.objects.filter(session__story=story).order_by("pk")
    desk.shop.server.until(lambda: rows.count() >= number, what=f"request {number}", seconds=60)
    return rows.select_related("session__story__project", "session__project")[number - 1]


def answer(desk: Desk, story: Story, number: int, *, allow: bool = True, **more: str) -> PermissionRequest:
    row = asked(desk, story, number)
    permissions.answer(row, allow=allow, actor=ALICE, **more)
    telling.tell(row.session_id)
    return row


@programs(CLAUDE, CODEX)
def test_it_asks_before_it_acts_and_goes_on_with_what_people_say(desk: Desk) -> None:
    """One session: allowed, denied, an edit shown with what it changes, interrupted with other words."""
    turns = [
        {"run": "echo one > one.txt"},
        {"run": "echo two > two.txt"},
        {"write": {"path": "three.txt", "content": "three\n"}, "match": "Not that one"},
        {"run": "echo busy > busy.txt; python3 -c 'import time; time.sleep(100)'"},
        {"write": {"path": "four.txt", "content": "four\n"}, "match": "Do four instead"},
        "Done.",
    ]
    shell, writer, written = TOOLS[desk.program]
    project = desk.open(turns, permissions={"mode": "ask", "rules": []})
    story = desk.start(project)
    first = answer(desk, story, 1)
    assert (first.tool, first.subject) == (shell, "echo one > one.txt")
    answer(desk, story, 2, allow=False, reason="Not that one.")
    third = answer(desk, story, 3)
    assert (third.tool, third.subject, third.arguments[written]) == (writer, "three.txt", "three\n")
    fourth = answer(desk, story, 4)
    desk.until_file(story, "busy.txt")
    assert "goes on with these words" in talking.interrupt(fourth.session, actor=BOB, text="Do four instead.")
    answer(desk, story, 5)  # its stdin is still open in the turn after
    (session,) = desk.shop.sessions(story)
    desk.shop.until_ended(session)
    assert (session.outcome, desk.fake.left("desk")) == ("done", 0), session.reason
    assert list(PermissionRequest.objects.order_by("pk").values_list("state", flat=True)) == [
        Asking.ALLOWED, Asking.DENIED, Asking.ALLOWED, Asking.ALLOWED, Asking.ALLOWED,
    ]  # fmt: skip
    assert not PermissionRequest.objects.filter(told_at=None).exists()
    said = body(session.process, "said")
    assert (said["by"], said["text"]) == ("bob", "Do four instead.")
    if desk.program == CLAUDE:
        assert session.reported_cost_usd == pytest.approx(session.cost_usd)


@programs(CLAUDE, CODEX)
def test_a_message_in_the_middle_of_a_turn_is_heard_after_the_tool_and_the_session_ends_by_itself(
    desk: Desk,
) -> None:
    turns = [
        {"run": "echo busy > busy.txt; until test -e .git/go; do true; done"},
        {"write": {"path": "red.txt", "content": "red\n"}, "match": "bob, a person who follows your work"},
        "Done.",
    ]
    story = desk.start(desk.open(turns))
    desk.until_file(story, "busy.txt")
    (session,) = desk.shop.sessions(story)
    row, _ = talking.message(session, "Make it red.", actor=BOB)
    row.refresh_from_db()
    assert row.state == "told"
    desk.shop.go(session)
    desk.shop.until_ended(session)
    assert (session.outcome, desk.fake.left("desk")) == ("done", 0), session.reason
    assert "Make it red." in desk.said()
    assert len(events(session.process, "said")) == 1
    assert not PermissionRequest.objects.exists()
