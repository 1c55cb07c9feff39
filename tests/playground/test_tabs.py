"""Compare and Look inside as a person meets them, against echo models behind the gateway's real doors."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.playground.driver import PlaygroundPage
from tests.playground.house import House

pytestmark = pytest.mark.slow

ATTACK = (
    "<script>document.title='broken'</script><img src=http://203.0.113.7/x.png onerror=\"document.title='broken'\"> "
    "![p](http://203.0.113.7/p.png) ${document.title='broken'} {{value}} <svg onload=\"document.title='broken'\">"
)


def choose(tab: PlaygroundPage, *models: str) -> None:
    field = tab.page.get_by_label("Models", exact=True)
    chosen = tab.page.locator("#compare-models .token")
    # A field that has just been shown sets itself to where it begins, once more, a moment later.
    tab.page.wait_for_timeout(500)
    for count, model in enumerate(models, 1):
        field.click()
        tab.page.get_by_role("option", name=re.compile(rf"^\W*{re.escape(model)}( |$)")).click()
        expect(chosen).to_have_count(count)
    field.press("Escape")


def test_models_are_compared_blind_and_voted_on_and_attacks_do_nothing(tab: PlaygroundPage, house: House):
    tab.turn_to("Compare")
    choose(tab, "quick", "slow")
    tab.page.get_by_label("Prompt for all", exact=True).fill(ATTACK)
    tab.page.get_by_role("button", name="Compare", exact=True).click()
    columns = tab.page.locator("#compare-answers section")
    expect(columns.locator(".facts", has_text="tokens")).to_have_count(2, timeout=30_000)
    assert columns.nth(1).locator("h3").inner_text() == "slow"
    assert "first token" in columns.nth(1).inner_text()
    assert tab.page.title() == "Model playground"
    assert columns.locator("img, script, svg").count() == 0

    tab.page.get_by_role("button", name="Blind, then vote").click()
    better = tab.page.get_by_role("button", name="A is better")
    expect(better).to_be_visible(timeout=30_000)
    assert [text.strip() for text in columns.locator("h3").all_inner_texts()] == ["Answer A", "Answer B"]
    assert "slow" not in tab.page.locator("#compare-answers").inner_html()
    better.click()
    expect(tab.page.locator("#compare-result")).to_have_text(re.compile("Counted. A was (quick|slow), B was"))
    expect(better).to_have_count(0)
    tab.page.get_by_role("button", name="Leaderboard", exact=False).first.click()
    expect(tab.page.locator("#compare-board table tbody tr")).to_have_count(2)


def test_one_that_fails_stands_beside_one_that_answers(tab: PlaygroundPage):
    tab.turn_to("Compare")
    choose(tab, "quick", "down")
    tab.page.get_by_label("Prompt for all", exact=True).fill("anyone?")
    tab.page.get_by_role("button", name="Compare", exact=True).click()
    columns = tab.page.locator("#compare-answers section")
    expect(columns.locator(".facts", has_text="quick")).to_have_count(1, timeout=30_000)
    expect(columns.locator(".notice")).to_have_text(re.compile("down is not up"))


def test_tokens_are_shown_picked_and_branched_from(tab: PlaygroundPage):
    tab.turn_to("Look inside")
    tab.page.get_by_label("Question to look into").fill(ATTACK)
    tab.page.get_by_role("button", name="Answer and show certainty").click()
    pieces = tab.page.locator("#inside-answer button.token")
    expect(pieces.first).to_be_visible(timeout=15_000)
    assert "%" in (pieces.first.get_attribute("title") or "")
    pieces.nth(1).click()
    expect(tab.page.get_by_role("radio").first).to_be_visible()
    tab.page.get_by_role("button", name="Continue from here").click()
    expect(tab.page.get_by_role("button", name="Continue from here")).to_have_count(0)
    expect(pieces.first).to_be_visible()
    assert tab.page.title() == "Model playground"
    assert tab.page.locator("#inside-answer").locator("img, script, svg").count() == 0


def test_a_text_is_scored_and_cut_into_tokens(tab: PlaygroundPage):
    tab.turn_to("Look inside")
    tab.turn_to("Prompt likelihood")
    tab.page.get_by_label("Text to score").fill(ATTACK)
    tab.page.get_by_role("button", name="Score every token").click()
    expect(tab.page.locator("#inside-scores")).to_have_text(re.compile("perplexity"), timeout=15_000)
    tab.turn_to("Tokenizer")
    tab.page.get_by_label("Text to tokenize").fill(ATTACK)
    tab.page.get_by_role("button", name="Show tokens").click()
    expect(tab.page.locator("#inside-tokens")).to_have_text(re.compile("decodes to the same text"), timeout=15_000)
    assert tab.page.locator("#inside-tokens, #inside-scores").locator("img, script, svg").count() == 0
    assert tab.page.title() == "Model playground"
