"""What no role opens: foreign ids, mixed ids, absurd ids; the headers of every answer; and that a role holds from the next request on."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.db import connections
from django.test import Client
from django.urls import reverse

from agents.models import Session
from pipeline import conf
from pipeline.models import Membership, Process, Story
from pipeline.roles import Role
from tests import factories
from tests.logs import add_events
from tests.pages.conftest import Town


def browser(town: Town, who: str) -> Client:
    client = Client()
    client.force_login(town.people[who])
    return client


def test_every_answer_carries_the_security_headers(town: Town) -> None:
    member, root, nobody = browser(town, "viewer"), browser(town, "root"), Client()
    asked = [
        (nobody, "/login/", 200),
        (nobody, "/p/web/", 302),
        (nobody, "/healthz", 503),
        (nobody, "/login-link/x/", 410),
        (member, "/", 200),
        (member, "/p/web/", 200),
        (member, "/p/nothing/", 404),
        (member, "/credentials/", 403),
        (member, f"/sessions/{town.session.pk}/", 200),
        (root, "/admin/", 200),
        (root, "/admin/agents/session/", 200),
        (root, "/p/web/settings/", 200),
        (member, "/p/web/new/", 405),
    ]
    for client, url, status in asked:
        answer = client.get(url)
        assert answer.status_code == status, url
        policy = answer["Content-Security-Policy"]
        for part in (
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ):
            assert part in policy, url
        assert "unsafe" not in policy
        assert answer["X-Frame-Options"] == "DENY" and answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Referrer-Policy"] == "same-origin" and "Access-Control-Allow-Origin" not in answer


def test_the_log_in_cookie_is_not_for_scripts_nor_for_other_sites(town: Town) -> None:
    answer = Client().post("/login/", {"username": "viewer", "password": "a long pass phrase"})
    cookie = answer.cookies["huskies_session"]
    assert cookie["httponly"] and cookie["samesite"] == "Lax"


def test_a_role_holds_from_the_next_request_on(town: Town) -> None:
    client, url = browser(town, "developer"), reverse("story-do", args=["web", town.story.number, "hold"])
    Membership.objects.filter(user=town.people["developer"]).update(role=Role.VIEWER)
    assert client.post(url).status_code == 403
    Membership.objects.filter(user=town.people["developer"]).delete()
    assert client.post(url).status_code == 404 and client.get("/p/web/").status_code == 404
    assert "web" not in client.get("/").content.decode().split("<main", 1)[1]


def test_a_switched_off_account_is_out_at_the_next_request(town: Town) -> None:
    client = browser(town, "admin")
    type(town.people["admin"]).objects.filter(pk=town.people["admin"].pk).update(is_active=False)
    assert client.get("/p/web/").status_code == 302


def test_ids_of_one_project_under_the_name_of_another_lead_nowhere(town: Town) -> None:
    other = factories.story(town.people["stranger"].memberships.get().project, "Theirs", criteria=["x"])
    client = browser(town, "stranger")
    for url in (
        reverse("version-approve", args=["other", town.proposed.pk]),
        reverse("criterion-tick", args=["other", other.number, town.criterion.pk]),
    ):
        assert client.post(url).status_code == 404, url
    town.proposed.refresh_from_db()
    town.criterion.refresh_from_db()
    assert town.proposed.state == "proposed" and not town.criterion.done


@pytest.mark.parametrize("number", ["0", "999999", "9" * 18, "9" * 40, "9" * 300])
def test_a_number_of_nothing_is_not_found(town: Town, number: str) -> None:
    client = browser(town, "root")
    for url in (f"/sessions/{number}/", f"/gates/{number}/", f"/p/web/{number}/", f"/p/web/{number}/diff/"):
        assert client.get(url).status_code == 404, url
    for url in (
        f"/p/web/{number}/start/",
        f"/p/web/{number}/criteria/{number}/",
        f"/p/web/versions/{number}/approve/",
    ):
        assert client.post(url).status_code == 404, url


@pytest.mark.parametrize("row", ["x", "-1", "9" * 30, "1/2"])
def test_the_admin_answers_for_a_session_that_is_not_there(town: Town, row: str) -> None:
    assert browser(town, "root").get(f"/admin/agents/session/{row}/change/").status_code in (302, 404)


def test_staff_see_in_the_admin_only_stories_of_their_projects(town: Town) -> None:
    user = town.people["stranger"]
    user.is_staff = True
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename="view_story"))
    client = browser(town, "stranger")
    assert town.story.title not in client.get("/admin/pipeline/story/").content.decode()
    assert client.get(f"/admin/pipeline/story/{town.story.pk}/change/").status_code == 302
    answer = client.post(
        "/admin/pipeline/story/", {"action": "archive_selected", "_selected_action": [town.story.pk]}
    )
    town.story.refresh_from_db()
    assert answer.status_code in (200, 302) and town.story.stage == "backlog"


@pytest.mark.parametrize("verb", ["land", "to_merge", "merge_failed", "start", "nonsense", "delete"])
def test_what_is_the_servers_alone_is_refused_even_to_a_superuser(town: Town, verb: str) -> None:
    answer = browser(town, "root").post(reverse("story-do", args=["web", town.story.number, verb]))
    assert answer.status_code == 409 and "nothing one can do" in answer.content.decode()


def test_a_redirect_never_leaves_this_server(town: Town) -> None:
    for to in ("//evil.example", "https://evil.example/", "board"):
        answer = browser(town, "developer").post(
            reverse("story-do", args=["web", town.story.number, "hold"]), {"next": to}
        )
        assert "evil" not in answer.get("Location", "")
        browser(town, "developer").post(reverse("story-do", args=["web", town.story.number, "park"]))
    answer = Client().post(
        "/login/?next=https://evil.example/",
        {"username": "viewer", "password": "a long pass phrase", "next": "//evil.example"},
    )
    assert answer.status_code == 302 and answer["Location"] == "/"


def test_a_story_started_from_the_board_is_claimed_and_stopped_from_its_session(town: Town) -> None:
    factories.coder(town.web, 2)
    row = factories.story(town.web, "Second")
    client = browser(town, "developer")
    answer = client.post(reverse("story-start", args=["web", row.number]), {"next": "board"})
    assert answer.status_code == 302 and answer["Location"] == "/p/web/"
    session = Session.objects.get(story=row)
    assert session.started_by == town.people["developer"]
    assert client.get(reverse("session", args=[session.pk])).status_code == 200
    assert client.post(reverse("story-stop", args=["web", row.number])).status_code == 302
    row.refresh_from_db()
    assert row.held_for and "developer" in row.held_for


def test_who_starts_when_no_agent_is_free_reads_the_reason(town: Town) -> None:
    row = factories.story(town.web, "Second")
    page = (
        browser(town, "developer")
        .post(reverse("story-start", args=["web", row.number]), follow=True)
        .content.decode()
    )
    row.refresh_from_db()
    assert row.waiting_for and "coder-1" in row.waiting_for and "It waits" in page


def test_two_browsers_that_start_one_story_at_once_make_one_session(live_town: Town) -> None:
    factories.coder(live_town.web, 2)
    factories.coder(live_town.web, 3)
    row = factories.story(live_town.web, "Both want it")
    together, answers = threading.Barrier(2), []
    clients = [browser(live_town, "developer"), browser(live_town, "operator")]

    def press(client: Client) -> None:
        try:
            together.wait(10)
            answers.append(client.post(reverse("story-start", args=["web", row.number])))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=press, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answer.status_code for answer in answers) == [302, 409]
    (loser,) = (answer.content.decode() for answer in answers if answer.status_code == 409)
    assert "already" in loser and Session.objects.filter(story=row).count() == 1


EVENT_BODIES: dict[str, dict[str, object]] = {
    "text": {"text": "T"},
    "thinking": {"text": "T"},
    "tool_start": {"title": "T", "name": "T", "text": "T"},
    "tool_end": {"text": "T", "error": True, "code": "T", "files": ["T", "b"]},
    "usage": {"model": "T", "input": "T", "output": "T", "cache_read": "T", "cost_usd": "T"},
    "line": {"text": "T", "stream": "T"},
    "output": {"text": "T", "stream": "T", "cut": "T"},
    "note": {"note": "T", "step": "T", "code": "T", "outcome": "T"},
    "cut": {"text": "T"},
    "started": {"label": "T", "version": "T"},
    "retry": {"reason": "T"},
    "T": {"message": "T"},
    "odd": {},
}
TAGS = ("<script>evil", "<img src=y", "<iframe", "<a href=")


@pytest.mark.parametrize("kind", EVENT_BODIES)
def test_every_kind_of_event_shows_hostile_text_as_text(town: Town, kind: str) -> None:
    from django.template.loader import render_to_string

    hostile = "<script>evil()</script><img src=y onerror=e()><iframe><a href=javascript:e()>\x1b[31mred\u202e\"' onload=e()"

    def fill(value: object) -> object:
        if isinstance(value, list):
            return [fill(each) for each in value]
        return hostile if value == "T" else value

    event = {
        "seq": 1,
        "kind": kind.replace("T", hostile[:20]),
        "body": {name: fill(value) for name, value in EVENT_BODIES[kind].items()},
    }
    html = render_to_string("pipeline/log_event.html", {"event": event})
    assert not any(tag in html for tag in TAGS) and "\x1b" not in html and "\u202e" not in html
    assert html.count('"') % 2 == 0 and "&amp;lt;" not in html


def test_hostile_names_and_lines_of_a_change_stay_text(town: Town, tmp_path: Path) -> None:
    control = conf.control_path(town.web.key)
    control.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(control, ignore_errors=True)
    work = factories.repository(tmp_path / "work", {"a.txt": "one\n"})
    base = factories.git("rev-parse", "HEAD", cwd=work)
    name = "<img src=y onerror=e()> \u202e.txt"
    tip = factories.commit_files(
        work, {name: "<script>evil()</script>\n\x1b[2Jgone\n", "a.txt": "two </pre><iframe>\n"}, "second"
    )
    factories.git("clone", "-q", "--bare", str(work), str(control), cwd=tmp_path)
    Story.objects.filter(pk=town.story.pk).update(base=base, tip=tip)
    answer = browser(town, "viewer").get(reverse("story-diff", args=["web", town.story.number]))
    html = answer.content.decode()
    assert answer.status_code == 200 and "2 files changed" in html and "&lt;script&gt;evil" in html
    assert not any(tag in html for tag in TAGS[:3]) and "\u202e" not in html and "\x1b" not in html


def test_an_old_part_of_a_long_log_stands_still_and_leads_to_the_rest(town: Town) -> None:
    add_events(town.process.pk, 2, *map(str, range(2, 1301)))
    Process.objects.filter(pk=town.process.pk).update(last_seq=1300)
    client, url = browser(town, "viewer"), reverse("session", args=[town.session.pk])
    newest, oldest = client.get(url).content.decode(), client.get(url + "?from=1").content.decode()
    assert (
        f'data-topic="process:{town.process.key}" data-cursor="1300"' in newest
        and newest.count("data-seq=") == 500
    )
    assert 'data-topic="process:"' in oldest and "?from=501" in oldest and oldest.count("data-seq=") == 500


def test_text_with_a_nul_is_answered_and_not_stored(town: Town) -> None:
    answer = browser(town, "developer").post(
        reverse("story-create", args=["web"]), {"title": "a\x00b", "kind": "story"}
    )
    assert answer.status_code == 400 and town.web.stories.count() == 1
    answer = browser(town, "developer").post(
        reverse("story-do", args=["web", town.story.number, "block"]), {"why": "a\x00b"}
    )
    town.story.refresh_from_db()
    assert answer.status_code == 302 and "a\ufffdb" in town.story.reason
    for verb, field in (("stop", "why"), ("start", "agent")):
        url = reverse(f"story-{verb}", args=["web", town.story.number])
        assert browser(town, "developer").post(url, {field: "a\x00b"}).status_code in (302, 409)


@pytest.mark.parametrize(
    ("posted", "words"),
    [
        ({"user": "viewer", "role": "king"}, "Role: Select a valid choice"),
        ({"role": "10"}, "User name: This field is required"),
        ({"user": "a\x00b", "role": "10"}, "Null characters are not allowed"),
        ({"user": "nobody", "role": "10"}, "There is no user"),
    ],
)
def test_a_role_that_cannot_be_set_says_why(town: Town, posted: dict[str, str], words: str) -> None:
    answer = browser(town, "admin").post(reverse("member-set", args=["web"]), posted)
    assert answer.status_code == 409 and words in answer.content.decode()
    assert browser(town, "viewer").post(reverse("member-set", args=["web"]), posted).status_code == 403
