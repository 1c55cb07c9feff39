"""The page as a person meets it, in Chromium, against echo models behind the gateway's real doors."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, expect

from tests.playground.conftest import KEY
from tests.playground.driver import PlaygroundPage, until
from tests.playground.house import House

pytestmark = pytest.mark.slow

LONG = "Every token of this takes its time, so that a person can see it come. " * 3


def test_a_message_is_answered_with_its_facts(tab: PlaygroundPage):
    assert tab.ask("Hello **there**") == "Hello there"
    assert re.fullmatch(
        r"(.* tokens/s · )?first token \d+ ms · \d+ tokens · prompt \d+ · quick", tab.facts.last.inner_text()
    )


def test_tokens_are_seen_arriving_and_speed_is_told(tab: PlaygroundPage):
    tab.pick("slow")
    tab.send("One two three four five six seven")
    expect(tab.answers).to_have_count(1)
    seen: set[str] = set()
    while tab.facts.count() == 0:
        seen.add(tab.answer())
    assert len(seen) >= 5
    assert all("One two three four five six seven".startswith(text) for text in seen)
    speed = float(tab.facts.last.inner_text().split(" tokens/s")[0])
    # 40 ms a token, and what the machine adds.
    assert 5 < speed <= 26


def test_stop_ends_the_generation_at_the_server(tab: PlaygroundPage, house: House):
    tab.pick("slow")
    tab.send(LONG)
    expect(tab.answers).to_have_count(1)
    assert house.running() == 1
    tab.stop_button.click()
    assert until(lambda: house.running() == 0, 1.5)
    expect(tab.facts).to_have_count(1)
    expect(tab.send_button).to_be_visible()
    assert "stopped" in tab.facts.last.inner_text()
    stopped_at = tab.answer()
    assert 0 < len(stopped_at) < len(LONG) - 20
    # What was said stays part of the conversation.
    tab.pick("quick")
    tab.ask("And now?")
    said = house.asked[-1][1]["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "user"]
    assert said[1]["content"].startswith(stopped_at.rstrip())


def test_a_closed_tab_ends_the_generation_at_the_server(browser: Browser, playground_url: str, house: House):
    tab = PlaygroundPage.tab(browser, playground_url).open()
    tab.pick("slow")
    tab.send(LONG)
    expect(tab.answers).to_have_count(1)
    assert house.running() == 1
    tab.close()
    assert until(lambda: house.running() == 0, 3)


def test_models_and_routes_are_offered_and_the_fast_lane_is_taken(tab: PlaygroundPage, house: House):
    assert tab.offered() == ["quick", "other", "slow", "breaks", "down", "any"]
    tab.ask("by the lane")
    assert house.asked[-1][0] == "/m/quick/v1/chat/completions"
    tab.pick("any")
    tab.ask("by the route")
    path, body = house.asked[-1]
    assert (path, body["model"]) == ("/v1/chat/completions", "any")
    assert tab.facts.last.inner_text().endswith("quick")


def test_settings_arrive_at_the_server(tab: PlaygroundPage, house: House):
    tab.set_system_prompt("Answer like a pirate.")
    tab.set_max_tokens(5)
    tab.set_temperature(0)
    assert tab.ask("Hello there") == "Hello"
    body = house.asked[-1][1]
    assert body["messages"][0] == {"role": "system", "content": "Answer like a pirate."}
    assert (body["max_tokens"], body["temperature"], body["stream"]) == (5, 0, True)
    assert "ended at max tokens" in tab.facts.last.inner_text()


def test_enter_sends_and_shift_enter_starts_a_line(tab: PlaygroundPage, house: House):
    tab.prompt.fill("first")
    tab.prompt.press("Shift+Enter")
    tab.prompt.press_sequentially("second")
    tab.prompt.press("Enter")
    expect(tab.facts).to_have_count(1)
    assert house.asked[-1][1]["messages"][-1]["content"] == "first\nsecond"
    expect(tab.prompt).to_have_value("")


def test_regenerate_asks_the_same_again_and_a_new_chat_forgets(tab: PlaygroundPage, house: House):
    tab.ask("once")
    tab.ask("twice")
    before = len(house.asked)
    tab.page.get_by_label("Retry").click()
    assert until(lambda: len(house.asked) == before + 1, 10)
    expect(tab.facts).to_have_count(2)
    assert house.asked[-1] == house.asked[-2]
    tab.page.get_by_role("button", name="New chat").click()
    expect(tab.answers).to_have_count(0)
    tab.ask("anew")
    assert [message["content"] for message in house.asked[-1][1]["messages"]] == ["anew"]


def test_a_locked_gateway_asks_for_a_key_and_takes_the_right_one(browser: Browser, locked_house: House):
    tab = PlaygroundPage.tab(browser, f"{locked_house.base_url}/playground").open(models=False)
    expect(tab.notice).to_have_text("This gateway needs a key. Enter yours under API key.")
    tab.set_key("wrong")
    expect(tab.notice).to_have_text("The gateway does not know this key. Check it under API key.")
    tab.set_key(KEY)
    expect(tab.model).to_have_value("quick")
    expect(tab.notice).to_have_count(0)
    assert tab.ask("open") == "open"
    tab.set_key("wrong")
    tab.send("again")
    expect(tab.failures).to_have_text(re.compile("does not know this key"))
    stored = tab.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert KEY not in stored and "wrong" not in stored
    assert tab.page.evaluate("indexedDB.databases().then(all => all.map(one => one.name))") == []
    assert tab.complaints == []
    tab.close()


def test_failures_are_told_in_words_and_the_page_goes_on(tab: PlaygroundPage):
    tab.pick("down")
    tab.send("anyone?")
    expect(tab.failures).to_have_text(re.compile(r"^down is not up at the moment"))
    expect(tab.send_button).to_be_visible()
    tab.pick("breaks")
    tab.send("this breaks off in the middle")
    expect(tab.failures).to_have_count(2)
    expect(tab.failures.last).to_have_text(re.compile("The answer broke off: the echo engine was told to fail"))
    assert tab.answer().startswith("this")
    tab.pick("quick")
    assert tab.ask("fine again") == "fine again"
