"""What pages say, what they cost in queries, and that nobody's text becomes markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.html import escape
from pytest_django import Settings

from agents.models import Credential
from pipeline import conf
from pipeline.live import topics
from pipeline.templatetags.huskies import markdown, safe_text
from tests import factories
from tests.pages.conftest import Town, build, log_line, prepare

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "</textarea><svg onload=alert(1)>",
    "{{ 7|add:7 }}{% now 'Y' %}",
    "javascript:alert(1)",
    "</pre></details><iframe src=//evil.example>",
)


def login(town: Town, who: str = "admin") -> Client:
    client = Client()
    client.force_login(town.people[who])
    return client


def pages(town: Town) -> list[str]:
    one = [town.web.name, town.story.number]
    return [
        "/",
        reverse("board", args=["web"]),
        reverse("story", args=one),
        reverse("story", args=one) + "?part=1",
        reverse("story-edit", args=one),
        reverse("session", args=[town.session.pk]),
        reverse("gate-run", args=[town.gate.pk]),
        reverse("project", args=["web"]),
        f"/admin/agents/session/{town.session.pk}/change/",
        "/admin/pipeline/story/",
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_in_pages_and_frames(
    db: None, tmp_path: Path, settings: Settings, text: str
) -> None:
    prepare(tmp_path, settings)
    town = build(text)
    client = login(town, "root")
    bodies = [client.get(url).content.decode() for url in pages(town)]
    frames = [
        topics.frame_after(f"project:{town.web.pk}", 0),
        topics.frame_after(f"process:{town.process.key}", 0),
    ]
    bodies += [
        part["html"]
        for frame in frames
        if frame
        for part in [*frame.get("cards", []), *frame.get("lines", [])]
    ]
    for body in bodies:
        for bad in (
            "<script>alert",
            "<img src=x",
            "<svg onload",
            "<iframe",
            'href="javascript:',
            "onerror=alert(1)>",
        ):
            assert bad not in body


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_lines_and_file_names_stay_text_in_a_diff(town: Town, text: str) -> None:
    source, control = conf.home() / "source", conf.control_path(town.web.key)
    tip = factories.commit_files(
        source, {f"{text.replace('/', '_')}.txt": f"{text}\n\u202e\x1b[31m\n"}, "hostile"
    )
    factories.git("fetch", "-q", str(source), "main:refs/heads/work", cwd=control)
    type(town.story).objects.filter(pk=town.story.pk).update(base=town.web.tip, tip=tip)
    answer = login(town, "viewer").get(reverse("story-diff", args=["web", town.story.number]))
    body = answer.content.decode()
    assert answer.status_code == 200 and "1 file changed" in body and escape(text) in body
    assert "\u202e" not in body and "\x1b" not in body
    for bad in ("<script>alert", "<img src=x", "<svg onload", "<iframe"):
        assert bad not in body


def test_control_and_direction_characters_are_shown_and_terminal_codes_go() -> None:
    assert safe_text("\x1b[31mred\x1b[0m \x1b]0;title\x07end") == "red end"
    assert safe_text("a\u202eb\x00c") == "a\\u{202e}b\\u{0}c"


def test_markdown_has_no_pictures_no_html_and_only_web_links() -> None:
    html = markdown("![x](http://a/b.png) <b>x</b> [a](javascript:alert(1)) [b](https://e.example)")
    assert "<img" not in html and "<b>" not in html and 'href="javascript' not in html
    assert 'href="https://e.example"' in html and "noopener" in html


def test_a_pushed_frame_holds_no_token(town: Town) -> None:
    frame = topics.frame_after(f"project:{town.web.pk}", 0)
    assert frame and "csrf" not in str(frame)


def test_a_board_costs_the_same_queries_whatever_its_size(town: Town) -> None:
    client, url = login(town), reverse("board", args=["web"])
    client.get(url)
    with CaptureQueriesContext(connection) as few:
        client.get(url)
    for n in range(40):
        factories.story(town.web, f"Story {n}")
    with CaptureQueriesContext(connection) as many:
        client.get(url)
    assert len(many) == len(few) <= 25


def test_a_column_shows_a_hundred_cards_and_a_link_to_the_rest(town: Town) -> None:
    for n in range(104):
        factories.story(town.web, f"Story {n}")
    client, url = login(town), reverse("board", args=["web"])
    page = client.get(url).content.decode()
    assert page.count('<article class="card') == 100 and "5 more" in page
    assert client.get(url + "?all=backlog").content.decode().count('<article class="card') == 105


def test_a_story_is_written_moved_and_read_on_its_pages(town: Town) -> None:
    client = login(town, "developer")
    client.post(
        reverse("story-create", args=["web"]),
        {"title": "Sort the list", "kind": "bug", "criteria": "one\n\ntwo\n"},
    )
    story = town.web.stories.get(title="Sort the list")
    assert story.kind == "bug" and [c.text for c in story.criteria.all()] == ["one", "two"]
    criterion = story.criteria.get(text="two")
    client.post(reverse("criterion-tick", args=["web", story.number, criterion.pk]))
    criterion.refresh_from_db()
    assert criterion.done
    client.post(reverse("story-do", args=["web", story.number, "archive"]))
    story.refresh_from_db()
    assert story.stage == "archived"
    assert "Sort the list" not in client.get(reverse("board", args=["web"])).content.decode()
    assert "Sort the list" in client.get(reverse("archived", args=["web"])).content.decode()


def test_a_refused_verb_is_a_409_with_its_sentence(town: Town) -> None:
    answer = login(town).post(reverse("story-do", args=["web", town.story.number, "approve"]))
    assert answer.status_code == 409 and "cannot be approved" in answer.content.decode()


def test_an_empty_board_says_what_to_do(town: Town) -> None:
    factories.project("fresh")
    assert "No story yet" in login(town, "root").get("/p/fresh/").content.decode()


@pytest.mark.parametrize("begin", ["\u00b2", "9" * 30, "9" * 5000, "-1", "x", ""])
def test_any_place_to_begin_a_log_is_answered(town: Town, begin: str) -> None:
    log_line(town.process, "second")
    assert login(town).get(reverse("session", args=[town.session.pk]), {"from": begin}).status_code == 200


def test_a_key_is_never_shown_again(town: Town) -> None:
    client = login(town, "root")
    client.post(
        reverse("credentials"),
        {"name": "main", "kind": "api_key", "value": "sk-very-secret-value-1234567890", "base_urls": ""},
    )
    bodies = [
        client.get(url).content.decode() for url in (reverse("credentials"), "/admin/agents/credential/")
    ]
    assert all("main" in body and "very-secret" not in body for body in bodies)
    row = Credential.objects.get(name="main")
    assert (
        "very-secret" not in row.sealed
        and row.sealed not in client.get(f"/admin/agents/credential/{row.pk}/change/").content.decode()
    )


def test_pages_forbid_inline_scripts_and_have_none(town: Town) -> None:
    for url in pages(town)[:8]:
        answer = login(town, "root").get(url)
        assert "script-src 'self'" in answer["Content-Security-Policy"]
        body = answer.content.decode()
        assert (
            "<style" not in body
            and " style=" not in body
            and " onclick=" not in body
            and "<script>" not in body
        )
