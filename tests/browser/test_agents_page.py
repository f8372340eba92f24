"""The agents page in a real browser, on the real server with the demo: it follows what agents do, and its buttons work."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.needs_browser, pytest.mark.timeout(180)]


def test_the_agents_page_follows_the_agents_and_a_pause_without_a_reload(login_link: str, page: Page) -> None:
    page.goto(login_link)
    page.get_by_role("button", name="Log in as").click()
    page.get_by_role("button", name="Start the demo").click()
    page.wait_for_url("**/p/demo/")
    agents = page.context.new_page()
    agents.goto(page.url + "agents/")
    agents.evaluate("window.same = true")

    # An agent begins, and says what it works on; later it is free again. Nobody reloads.
    busy = agents.locator(".agent[data-state=working]").first
    expect(busy).to_be_visible()
    name = busy.get_attribute("data-agent")
    assert name is not None
    card = agents.locator(f".agent[data-agent='{name}']")
    expect(card.locator("a[href^='/sessions/']")).to_be_visible()
    expect(card).to_have_attribute("data-state", "free")
    assert agents.evaluate("window.same") is True

    # What one page pauses, the other shows.
    other = page.context.new_page()
    other.goto(agents.url)
    mine = other.locator(f".agent[data-agent='{name}']")
    mine.get_by_text("Pause", exact=True).click()
    mine.get_by_label("is paused").fill("<b>lunch</b>")
    mine.get_by_role("button", name="Pause").click()
    expect(card).to_contain_text("<b>lunch</b>")
    expect(agents.locator(".history")).to_contain_text("agent.pause")
    mine.get_by_role("button", name="Resume").click()
    expect(card).not_to_contain_text("lunch")
    assert agents.evaluate("window.same") is True
