"""A real browser, the real server (`up`) and the demo: what a person sees without ever reloading."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.needs_browser, pytest.mark.timeout(180)]


def seqs(page: Page) -> list[int]:
    found: list[int] = page.eval_on_selector_all(
        "#log [data-seq]", "rows => rows.map(row => Number(row.dataset.seq))"
    )
    return found


def test_from_a_link_to_a_landed_story_without_a_reload(login_link: str, page: Page) -> None:
    page.goto(login_link)
    page.get_by_role("button", name="Log in as").click()
    page.get_by_role("button", name="Start the demo").click()
    page.wait_for_url("**/p/demo/")
    page.evaluate("window.same = true")

    # A card says live that an agent works on it.
    expect(page.locator(".stack[data-stage=coding] .card.working").first).to_be_visible()
    number = page.locator(".card.working").first.get_attribute("data-number")
    assert number is not None

    # The session's output comes line by line.
    session = page.context.new_page()
    session.goto(page.url + f"{number}/")
    session.locator("table a[href^='/sessions/']").first.click()
    session.wait_for_url("**/sessions/*/")
    session.evaluate("window.same = true")
    before = seqs(session)
    session.wait_for_function(
        "n => document.querySelectorAll('#log [data-seq]').length > n + 2", arg=len(before)
    )
    live = seqs(session)
    assert live == list(range(1, len(live) + 1)) and session.evaluate("window.same") is True

    # The card moves on: the gate was green, it leaves coding.
    card = f".card[data-number='{number}']"
    page.wait_for_selector(f".stack:not([data-stage=coding]):not([data-stage=backlog]) {card}")
    assert page.evaluate("window.same") is True and page.locator(card).count() == 1

    # A reload shows what was pushed, each line once.
    text = {seq: session.locator(f"#log [data-seq='{seq}']").inner_text() for seq in live[:3]}
    session.reload()
    again = seqs(session)
    assert again == list(range(1, len(again) + 1)) and len(again) >= len(live)
    assert {seq: session.locator(f"#log [data-seq='{seq}']").inner_text() for seq in live[:3]} == text

    # Whoever logs out in one tab is told so in the other, with the way back in.
    session.get_by_role("button", name="Log out").click()
    link = page.get_by_role("link", name="Log in again")
    expect(link).to_have_attribute("href", "/login/?next=%2Fp%2Fdemo%2F")
