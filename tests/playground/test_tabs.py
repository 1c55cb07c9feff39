"""Compare and Look inside as a person meets them, against echo models behind the gateway's real doors."""

from __future__ import annotations

import re
from functools import partial

import pytest
from playwright.sync_api import Browser, expect

from gateway.tabs import PageContext, TabOffer
from tests.playground.conftest import KEY
from tests.playground.driver import PlaygroundPage
from tests.playground.hostile import ALL
from tests.playground.house import House, installed_tabs, on_a_port

pytestmark = pytest.mark.slow


def test_a_strangers_tab_stands_beside_ours_and_asks_with_the_persons_key(browser: Browser):
    def build(context: PageContext) -> None:
        import gradio as gr

        async def look(model: str, key: str | None) -> str:
            asked = await context.client.get(f"/v1/models/{model}", (key or "").strip())
            return f"<p>{context.escape(asked['id'])} {context.escape('<b>')}</p>"

        shown = gr.HTML(label="Of a stranger", elem_id="strange")
        picked = context.picker(label="Model of the stranger")
        context.tab.select(look, [picked, context.key], [shown])

    tabs = (*installed_tabs(), TabOffer("strange", "Strange", 15, build))
    with on_a_port(partial(House, keys=(KEY,), tabs=tabs)) as (url, _):
        tab = PlaygroundPage.tab(browser, f"{url}/playground").open(models=False)
        expect(tab.notice).to_contain_text("needs a key")
        tab.set_key(KEY)
        expect(tab.model).not_to_have_value("")
        assert tab.page.get_by_role("tab").all_inner_texts()[:3] == ["Chat", "Strange", "Compare"]
        tab.turn_to("Strange")
        expect(tab.page.locator("#strange")).to_have_text("quick <b>")
        tab.close()
        assert tab.complaints == []


def test_models_are_compared_blind_and_voted_on(tab: PlaygroundPage, house: House):
    tab.turn_to("Compare")
    tab.choose("quick", "other")
    tab.page.get_by_label("Prompt for all", exact=True).fill(ALL)
    tab.page.get_by_label("Mark words that differ from the first").check()
    tab.page.get_by_role("button", name="Compare", exact=True).click()
    columns = tab.page.locator("#compare-answers section")
    expect(columns.locator(".facts", has_text="tokens")).to_have_count(2, timeout=30_000)
    assert columns.nth(1).locator("h3").inner_text() == "other"
    assert "first token" in columns.nth(1).inner_text()

    tab.page.get_by_role("button", name="Blind, then vote").click()
    better = tab.page.get_by_role("button", name="A is better")
    expect(better).to_be_visible(timeout=30_000)
    assert [text.strip() for text in columns.locator("h3").all_inner_texts()] == ["Answer A", "Answer B"]
    assert "other" not in tab.page.locator("#compare-answers").inner_html()
    better.click()
    expect(tab.page.locator("#compare-result")).to_have_text(re.compile("Counted. A was (quick|other), B was"))
    expect(better).to_have_count(0)
    tab.page.get_by_role("button", name="Leaderboard", exact=False).first.click()
    expect(tab.page.locator("#compare-board table tbody tr")).to_have_count(2)


def test_one_that_fails_stands_beside_one_that_answers(tab: PlaygroundPage):
    tab.turn_to("Compare")
    tab.choose("quick", "down")
    tab.page.get_by_label("Prompt for all", exact=True).fill("anyone?")
    tab.page.get_by_role("button", name="Compare", exact=True).click()
    columns = tab.page.locator("#compare-answers section")
    expect(columns.locator(".facts", has_text="quick")).to_have_count(1, timeout=30_000)
    expect(columns.locator(".notice")).to_have_text(re.compile("down is not up"))


def test_tokens_are_shown_picked_and_branched_from(tab: PlaygroundPage):
    tab.turn_to("Look inside")
    tab.page.get_by_label("Question to look into").fill(ALL)
    tab.page.get_by_role("button", name="Answer and show certainty").click()
    pieces = tab.page.locator("#inside-answer button.token")
    expect(pieces.first).to_be_visible(timeout=15_000)
    assert "%" in (pieces.first.get_attribute("title") or "")
    pieces.nth(1).click()
    expect(tab.page.get_by_role("radio").first).to_be_visible()
    tab.page.get_by_role("button", name="Continue from here").click()
    expect(tab.page.get_by_role("button", name="Continue from here")).to_have_count(0)
    expect(pieces.first).to_be_visible()


def test_a_text_is_scored_and_cut_into_tokens(tab: PlaygroundPage):
    tab.turn_to("Look inside")
    tab.turn_to("Prompt likelihood")
    tab.page.get_by_label("Text to score").fill(ALL)
    tab.page.get_by_role("button", name="Score every token").click()
    expect(tab.page.locator("#inside-scores")).to_have_text(re.compile("perplexity"), timeout=15_000)
    tab.turn_to("Tokenizer")
    tab.page.get_by_label("Text to tokenize").fill(ALL)
    tab.page.get_by_role("button", name="Show tokens").click()
    expect(tab.page.locator("#inside-tokens")).to_have_text(re.compile("decodes to the same text"), timeout=15_000)
