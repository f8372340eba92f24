"""An agent asks, in a real browser, on the real server: the board lists it, people answer and speak to it, and nobody reloads."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_every_page import open_demo

pytestmark = [pytest.mark.needs_browser, pytest.mark.timeout(180)]

EDIT = {"file_path": "src/a.py", "old_string": "<b>old</b>", "new_string": "<i>new</i>"}
SCRIPT = [
    {"request": {"tool": "Edit", "input": EDIT}},
    {"request": {"tool": "Bash", "input": {"command": "git push"}}},
    {"wait_told": 60},
    {"say": "That was all."},
    {"wait_told": 60},
]


def test_a_request_is_listed_shown_answered_and_spoken_about_live(login_link: str, page: Page) -> None:
    server = open_demo(page, login_link)
    page.evaluate("window.same = true")
    writing = page.context.new_page()
    writing.goto(server + "/p/demo/")
    writing.get_by_text("New story").click()
    writing.get_by_label("Title").fill("Ask before you act")
    writing.get_by_label("Description").fill(f"Do it.\n\n```script\n{json.dumps(SCRIPT)}\n```\n")
    writing.get_by_role("button", name="Write it").click()
    card = writing.locator(".card", has_text="Ask before you act")
    card.get_by_role("button", name="Start").click()

    # The board lists it the moment it asks, and leads to it.
    need = page.locator("#needs .need", has_text="Edit src/a.py")
    expect(need).to_be_visible()
    expect(
        page.locator(".card", has_text="Ask before you act").get_by_text("asks", exact=True)
    ).to_be_visible()
    need.get_by_role("link", name="Look").click(modifiers=["ControlOrMeta"])
    session = page.context.new_page()
    href = need.get_by_role("link", name="Look").get_attribute("href")
    assert href is not None
    session.goto(server + href)
    session.evaluate("window.same = true")
    expect(session.locator(".request .del")).to_have_text("- <b>old</b>\n")
    expect(session.locator(".request .add")).to_have_text("+ <i>new</i>\n")

    # One answers on the session's page, the next on the board; both pages follow.
    session.get_by_role("button", name="Allow once").click()
    second = page.locator("#needs .need", has_text="Bash git push")
    expect(second).to_be_visible()
    expect(need).to_have_count(0)
    assert page.evaluate("window.same") is True
    expect(session.locator("#log")).to_contain_text("Edit was allowed")
    session.evaluate("window.same = true")
    second.get_by_role("button", name="Deny").click()
    expect(page.locator("#needs")).not_to_contain_text("git push")
    expect(session.locator("#log")).to_contain_text("Bash was denied")

    # It is spoken to, and the output shows whose words it heard.
    session.get_by_label("Message").fill("Make it <b>red</b>.")
    session.get_by_role("button", name="Send").click()
    expect(session.locator("#log .ev-said")).to_contain_text("Make it <b>red</b>.")
    expect(session.locator("#log")).to_contain_text("That was all.")
    expect(session.locator("#by-hand")).to_contain_text("cd ")
    session.get_by_role("button", name="Interrupt").click()
    expect(session.locator("#facts .notice").first).to_contain_text("stopped")
