"""What people see of agents that ask and are spoken to: the session's page, the board's list, the admin, the command line."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from agents.models import Agent, Credential, Message, PermissionRequest, Session
from agents.models.permission import Asking
from pipeline import conf, events
from pipeline.datafolder import prepare
from pipeline.live.topics import frame_after, newest
from pipeline.models import StageChange, Story
from tests import factories
from tests.pages.conftest import Town, build

HOSTILE = '<script>alert(1)</script>"\u202e\x1b[31m'


def of(town: Town, who: str) -> Client:
    client = Client()
    client.force_login(town.people[who])
    return client


def session_page(town: Town, who: str) -> str:
    return of(town, who).get(reverse("session", args=[town.session.pk])).content.decode()


def board(town: Town, who: str) -> str:
    return of(town, who).get(reverse("board", args=["web"])).content.decode()


def answer(town: Town, who: str, **fields: str) -> Any:
    return of(town, who).post(reverse("session-answer", args=[town.session.pk, town.asked.pk]), fields)


def test_who_may_answer_is_offered_it_and_who_may_not_is_told_who_may(town: Town) -> None:
    for who in ("operator", "admin", "root"):
        page = session_page(town, who)
        assert "Allow once" in page and "Allow for this session" in page and "Deny" in page
        assert 'value="allow">Allow</button>' in board(town, who)
    for who in ("viewer", "developer"):
        assert "Allow once" not in session_page(town, who) and "the developer who started" in session_page(
            town, who
        )
        assert 'value="allow">Allow</button>' not in board(town, who) and "Needs you" in board(town, who)
    Session.objects.update(started_by=town.people["developer"])
    assert "Allow once" in session_page(town, "developer")
    assert 'value="allow">Allow</button>' in board(town, "developer")
    assert answer(town, "developer", decide="allow").status_code == 302


def test_an_edit_is_shown_with_what_goes_and_what_comes_escaped(town: Town) -> None:
    PermissionRequest.objects.update(
        tool="Edit",
        subject="src/<b>.py",
        arguments={"file_path": "src/<b>.py", "old_string": f"old {HOSTILE}", "new_string": "new <i>"},
    )
    page = session_page(town, "operator")
    assert '<span class="del">- old &lt;script&gt;alert(1)&lt;/script&gt;&quot;\\u{202e}' in page
    assert '<span class="add">+ new &lt;i&gt;' in page and "src/&lt;b&gt;.py" in page
    assert "<script>alert" not in page and "\x1b" not in page and "\u202e" not in page
    PermissionRequest.objects.update(arguments={"command": "x" * 100 + " […]"})
    assert "too long to be shown whole" in session_page(town, "operator")


def test_hostile_text_is_text_everywhere(db: None, tmp_path: Any, settings: Any) -> None:
    settings.HUSKIES_HOME = tmp_path / "data"
    town = build("<script>alert(1)</script>")
    PermissionRequest.objects.update(
        subject=HOSTILE, tool=HOSTILE, text=HOSTILE, arguments={HOSTILE: HOSTILE}
    )
    Message.objects.create(session=town.session, author=HOSTILE[:100], text=HOSTILE)
    for page in (session_page(town, "operator"), board(town, "operator")):
        assert "<script>alert" not in page and "\x1b" not in page
    admin = of(town, "root")
    for url in (f"agents/session/{town.session.pk}/change/", "agents/permissionrequest/", "agents/message/"):
        assert "<script>alert" not in admin.get(f"/admin/{url}").content.decode()


def test_the_first_answer_stands_and_the_second_is_told_who_gave_it(town: Town) -> None:
    assert answer(town, "operator", decide="deny", reason="Not now.").status_code == 302
    late = answer(town, "admin", decide="allow")
    assert late.status_code == 409 and "denied by operator" in late.content.decode()
    row = PermissionRequest.objects.get()
    assert (row.state, row.answered_by, row.reason) == (Asking.DENIED, "operator", "Not now.")
    page = session_page(town, "viewer")
    assert "Not now." in page and "the agent has not heard it yet" in page
    assert StageChange.objects.get(verb="permission").actor == "operator"
    assert "Not now." in of(town, "viewer").get(reverse("story", args=["web", 1])).content.decode()


@pytest.mark.parametrize("decide", ["", "perhaps", "\x00"])
def test_an_answer_that_is_none_changes_nothing(town: Town, decide: str) -> None:
    assert answer(town, "operator", decide=decide).status_code == 409
    assert PermissionRequest.objects.get().state == Asking.WAITING


def test_a_request_of_another_session_is_not_there(town: Town) -> None:
    other = Session.objects.get(pk=town.session.pk)
    other.pk, other.key, other.fence, other.state, other.outcome = None, "k" * 20, 9, "ended", "done"
    other.save()
    url = reverse("session-answer", args=[other.pk, town.asked.pk])
    assert of(town, "root").post(url, {"decide": "allow"}).status_code == 404


def test_the_admin_answers_by_the_same_verb(town: Town) -> None:
    client = of(town, "root")
    fields = {"action": "allow_selected", "_selected_action": str(town.asked.pk)}
    page = client.post("/admin/agents/permissionrequest/", fields, follow=True).content.decode()
    assert "Allowed: 1." in page and PermissionRequest.objects.get().answered_by == "root"
    again = client.post("/admin/agents/permissionrequest/", fields | {"action": "deny_selected"}, follow=True)
    assert "The first answer stands" in again.content.decode()


def test_a_message_is_written_down_with_its_author_and_shown(town: Town) -> None:
    url = reverse("session-message", args=[town.session.pk])
    assert of(town, "developer").post(url, {"text": "Make it <b>red</b>."}).status_code == 302
    row = Message.objects.get()
    assert (row.author, row.state, row.told_in) == ("developer", "waiting", None)
    page = session_page(town, "viewer")
    assert "Make it &lt;b&gt;red&lt;/b&gt;." in page and "waits until it can be passed on" in page
    assert StageChange.objects.get(verb="message").actor == "developer"
    for text in ("", "  ", "x" * 8001, "a\x00b"):
        assert of(town, "developer").post(url, {"text": text}).status_code in (302, 409)
    assert of(town, "viewer").post(url, {"text": "hello"}).status_code == 403


def test_needs_you_lists_what_waits_for_a_person_with_its_button(town: Town) -> None:
    web = town.web
    rows = {
        "blocked": {"stage": "blocked", "reason": "It broke.", "blocked_in": "coding"},
        "merge": {"stage": "merge_failure", "reason": "A conflict."},
        "qa": {"stage": "qa"},
        "looked": {"stage": "qa", "qa": "agent", "waiting_for": "qa has looked at it"},
        "watched": {"stage": "qa", "qa": "agent"},
        "files": {"stage": "merge", "needs_approval": "It touches the gate."},
        "fine": {"stage": "coding"},
    }
    for title, values in rows.items():
        Story.objects.filter(pk=factories.story(web, title).pk).update(**values)
    assert web.version is not None
    web.version.data["gate"] = {"command": "true"}  # without one, everything is for a person to look at
    web.version.save()
    Credential.objects.create(name="team", kind="api_key", paused_for="The provider refused it.")
    Agent.objects.update(entry={"credential": "team"})
    part = of(town, "developer").get(reverse("board", args=["web"]), {"part": "needs"}).content.decode()
    shown = {title for title in rows if title in part}
    assert shown == {"blocked", "merge", "qa", "looked", "files"}
    for words in (
        "It broke.",
        "Unblock",
        "Back to the coder",
        "Approve",
        "Credential team",
        "The provider refused it.",
    ):
        assert words in part, words
    assert "Approve these files" not in part
    assert "Approve these files" in of(town, "admin").get(reverse("board", args=["web"])).content.decode()
    viewer = of(town, "viewer").get(reverse("board", args=["web"]), {"part": "needs"}).content.decode()
    assert "<button" not in viewer and "Look" in viewer


def test_the_list_costs_no_query_for_each_thing_that_waits(town: Town) -> None:
    client, url = of(town, "operator"), reverse("board", args=["web"]) + "?part=needs"
    client.get(url)
    with CaptureQueriesContext(connection) as few:
        client.get(url)
    for number in range(8):
        story = factories.story(town.web, f"s{number}")
        Story.objects.filter(pk=story.pk).update(stage="qa")
    with CaptureQueriesContext(connection) as many:
        client.get(url)
    assert len(many) <= len(few) + 2


def test_a_request_and_its_answer_are_news_for_the_board(town: Town) -> None:
    topic = f"project:{town.web.pk}"
    before = newest(topic)
    assert answer(town, "operator", decide="allow").status_code == 302
    frame = frame_after(topic, before)
    assert frame is not None and "needs" in frame["news"]
    assert ">asks</a>" not in frame["cards"][0]["html"]
    PermissionRequest.objects.update(state="waiting", answered_at=None)
    events.record(town.web.pk, "needs", story=town.story)
    again = frame_after(topic, frame["upto"])
    assert again is not None and ">asks</a>" in again["cards"][0]["html"]


def test_the_home_page_lists_requests(town: Town) -> None:
    page = of(town, "operator").get("/").content.decode()
    assert reverse("session", args=[town.session.pk]) in page and "asks" in page
    assert reverse("session", args=[town.session.pk]) not in of(town, "stranger").get("/").content.decode()


def run(*words: str) -> Any:
    out = io.StringIO()
    call_command("session", *words, "--json", stdout=out, stderr=io.StringIO())
    return json.loads(out.getvalue())


def test_the_command_line_lists_answers_and_speaks(town: Town, settings: Any) -> None:
    prepare(conf.home())
    pk = str(town.session.pk)
    (asks,) = run("show", pk)["asks"]
    assert (asks["id"], asks["state"], asks["tool"]) == (town.asked.pk, "waiting", "Bash")
    with pytest.raises(CommandError, match=f"has no request 999999. `session show {pk}`"):
        run("answer", pk, "999999", "allow")
    told = run("answer", pk, str(asks["id"]), "deny", "--reason", "Not here.")
    assert (told["state"], told["by"], told["reason"]) == ("denied", "the command line", "Not here.")
    with pytest.raises(CommandError, match="The first answer stands"):
        run("answer", pk, str(asks["id"]), "allow", "--for-session")
    assert run("message", pk, "--text", "Make it red.")["state"] == "waiting"
    assert "stopped" in run("interrupt", pk, "--text", "Do it another way.")["then"]
    assert Message.objects.filter(text="Do it another way.").exists()
    with pytest.raises(CommandError, match="is empty"):
        run("message", pk, "--text", " ")
