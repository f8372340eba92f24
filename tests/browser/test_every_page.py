"""All pages in a real browser, on the real server with the demo: they fit a telephone, and one whose subject goes says so."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.needs_browser, pytest.mark.timeout(180)]

PAGES = (
    *(
        "/",
        "/agents/",
        "/limits/",
        "/spending/",
        "/prices/",
        "/credentials/",
        "/hosts/",
        "/doctor/",
        "/next-steps/",
        "/runtimes/",
        "/projects/add/",
    ),
    *("/p/demo/", "/p/demo/agents/", "/p/demo/limits/", "/p/demo/spending/", "/p/demo/settings/"),
    *("/p/demo/1/", "/p/demo/1/edit/", "/p/demo/1/delete/"),
)


def open_demo(page: Page, login_link: str) -> str:
    """Log in and start the demo; returns the server's address."""
    page.goto(login_link)
    page.get_by_role("button", name="Log in as").click()
    page.get_by_role("button", name="Start the demo").click()
    page.wait_for_url("**/p/demo/")
    return page.url.removesuffix("/p/demo/")


def test_no_page_is_wider_than_a_telephone(login_link: str, page: Page) -> None:
    server = open_demo(page, login_link)
    page.set_viewport_size({"width": 360, "height": 740})
    wide = []
    for path in PAGES:
        answer = page.goto(server + path)
        assert answer is not None and answer.ok, path
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            wide.append(path)
    assert wide == []


def test_the_page_of_a_deleted_story_says_that_it_is_gone(login_link: str, page: Page) -> None:
    server = open_demo(page, login_link)
    page.goto(f"{server}/p/demo/3/")
    assert page.context.browser is not None
    # Another browser of the same person: it asks for what is gone, which the console of this one counts as an error.
    reader = page.context.browser.new_context(storage_state=page.context.storage_state()).new_page()
    reader.goto(page.url)
    page.get_by_role("link", name="Delete …").click()
    page.get_by_role("button", name="Delete it").click()
    expect(reader.locator(".live")).to_contain_text("is not there any more")
