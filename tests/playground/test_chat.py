"""The Chat tab beyond question and answer: branches, sampling, conversations that are kept, files, code and keys."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, expect

from tests.playground.driver import PlaygroundPage, until
from tests.playground.house import House

pytestmark = pytest.mark.slow


def contents(house: House) -> list[str]:
    """What the last request said."""
    return [message["content"] for message in house.asked[-1][1]["messages"]]


def kept(tab: PlaygroundPage) -> dict[str, Any]:
    """What the browser keeps, by title."""
    found = tab.page.evaluate("Object.entries(localStorage).filter(one => one[0].startsWith('gateway.chat.'))")
    documents = [json.loads(text) for _, text in found]
    return {document["title"]: document for document in documents}


def edit(tab: PlaygroundPage, index: int, text: str) -> None:
    tab.page.get_by_label("Edit").nth(index).click()
    tab.page.locator("#chat textarea").fill(text)
    tab.page.get_by_label("Submit").click()


def opened(tab: PlaygroundPage) -> Any:
    return tab.page.get_by_label("Conversations kept in this browser")


def open_kept(tab: PlaygroundPage, title: str) -> None:
    opened(tab).click()
    tab.page.get_by_role("option", name=title).click()


def test_a_question_is_edited_and_both_branches_stay(tab: PlaygroundPage, house: House):
    tab.ask("one")
    tab.ask("two <b>&amp;</b>")
    edit(tab, 0, "uno")
    expect(tab.questions).to_have_count(1)
    expect(tab.facts).to_have_count(1)
    assert contents(house) == ["uno"]
    branches = tab.page.get_by_label("Branches of this conversation")
    expect(branches).to_have_value(re.compile("^2/2: uno"))
    branches.click()
    tab.page.get_by_role("option", name="1/2: two").click()
    expect(tab.questions).to_have_count(2)
    assert tab.ask("three") == "three"
    assert contents(house) == ["one", "one", "two <b>&amp;</b>", "two <b>&amp;</b>", "three"]
    # An edit hands back what the page showed: nothing of it is changed by that.
    tab.page.get_by_label("Edit").nth(1).click()
    field = tab.page.locator("#chat textarea")
    field.press("End")
    field.press_sequentially(" again")
    tab.page.get_by_label("Submit").click()
    expect(tab.facts).to_have_count(2)
    assert contents(house) == ["one", "one", "two <b>&amp;</b> again"]
    # An answer that is made anew keeps the old one.
    tab.page.get_by_label("Retry").click()
    expect(branches).to_have_value(re.compile("^4/4: two .* → two"))
    # That shows while the answer is still coming; it is kept once all of it is there.
    expect(tab.facts).to_have_count(2)
    expect(tab.send_button).to_be_visible()
    document = kept(tab)["one"]
    # All of it outlives the page.
    tab.page.reload()
    expect(tab.model).not_to_have_value("")
    open_kept(tab, "one")
    expect(branches).to_have_value(re.compile("^4/4: two .* → two"))
    expect(tab.questions).to_have_count(2)
    assert tab.ask("four") == "four"
    assert contents(house) == ["one", "one", "two <b>&amp;</b> again", "two <b>&amp;</b> again", "four"]
    assert len(document["branches"]) == 3


def test_every_sampling_parameter_arrives_and_presets_fill_them(tab: PlaygroundPage, house: House):
    tab.open_settings()
    fields = {
        "Top p": "0.9", "Top k": "40", "Min p": "0.05", "Presence penalty": "0.5", "Frequency penalty": "-0.5",
        "Repetition penalty": "1.1", "Seed": "7",
    }  # fmt: skip
    for label, value in fields.items():
        field = tab.page.get_by_label(label, exact=True)
        expect(field).to_have_value("")
        field.fill(value)
    tab.page.get_by_label("Stop strings, one a line").fill("END\nSTOP")
    tab.set_temperature(0.3)
    tab.set_max_tokens(9)
    tab.send("all of them")
    expect(tab.failures).to_have_text(re.compile("does not support"))
    body = house.asked[-1][1]
    del body["model"], body["messages"], body["stream"], body["stream_options"]
    assert body == {
        "temperature": 0.3, "max_tokens": 9, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "presence_penalty": 0.5,
        "frequency_penalty": -0.5, "repetition_penalty": 1.1, "seed": 7, "stop": ["END", "STOP"],
    }  # fmt: skip
    tab.page.get_by_label("Top p", exact=True).fill("much")
    before = len(house.asked)
    tab.send("and now?")
    expect(tab.failures.last).to_have_text("Top p is a number, not “much”. Empty means the engine's own.")
    assert len(house.asked) == before
    tab.page.get_by_label("Preset").click()
    tab.page.get_by_role("option", name="Precise").click()
    expect(tab.page.get_by_label("Top p", exact=True)).to_have_value("0.9")
    expect(tab.page.get_by_label("Seed", exact=True)).to_have_value("")
    # Asked again, with what the preset says.
    tab.page.get_by_label("Retry").click()
    expect(tab.facts).to_have_count(1)
    assert house.asked[-1][1]["temperature"] == 0.2
    assert "seed" not in house.asked[-1][1]


def test_conversations_are_kept_listed_renamed_and_deleted(tab: PlaygroundPage):
    page = tab.page
    expect(opened(tab)).to_have_value("A new conversation")
    tab.ask("the first")
    expect(opened(tab)).to_have_value("the first")
    page.get_by_role("button", name="New chat").click()
    expect(tab.questions).to_have_count(0)
    tab.ask("the second")
    page.get_by_role("button", name="Conversation", exact=False).last.click()
    title = page.get_by_label("Title", exact=True)
    expect(title).to_have_value("the second")
    tab.write("Title", "My <b>own</b> name")
    page.get_by_role("button", name="Rename").click()
    expect(opened(tab)).to_have_value("My <b>own</b> name")
    title.fill("half a na")
    tab.ask("the third")
    expect(opened(tab)).to_have_value("My <b>own</b> name")
    page.wait_for_timeout(500)
    expect(title).to_have_value("half a na")
    page.reload()
    expect(tab.model).not_to_have_value("")
    opened(tab).click()
    expect(page.get_by_role("option")).to_have_text(
        [re.compile("A new conversation"), re.compile("My <b>own</b> name"), re.compile("the first")]
    )
    page.get_by_role("option", name="the first").click()
    expect(tab.questions).to_have_text("the first")
    page.get_by_role("button", name="Conversation", exact=False).last.click()
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Delete this").click()
    page.wait_for_timeout(300)
    assert set(kept(tab)) == {"My <b>own</b> name", "the first"}
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete this").click()
    expect(tab.questions).to_have_count(0)
    assert set(kept(tab)) == {"My <b>own</b> name"}
    page.get_by_role("button", name="Delete this").click()
    expect(page.locator("#kept-notice")).to_contain_text("No conversation is open")


def test_conversations_are_exported_and_imported_elsewhere(
    tab: PlaygroundPage, browser: Browser, playground_url: str, tmp_path: Path
):
    tab.ask("to be taken along")
    tab.page.get_by_role("button", name="New chat").click()
    expect(tab.questions).to_have_count(0)
    tab.ask("also")
    tab.page.get_by_role("button", name="Conversation", exact=False).last.click()
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Export all").click()
    path = tmp_path / "all.json"
    download.value.save_as(path)
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Export this").click()
    download.value.save_as(tmp_path / "one.json")
    assert {one["title"] for one in json.loads(path.read_text())["conversations"]} == {"to be taken along", "also"}
    assert len(json.loads((tmp_path / "one.json").read_text())["conversations"]) == 1

    other = PlaygroundPage.tab(browser, playground_url).open()
    other.page.get_by_role("button", name="Conversation", exact=False).last.click()
    bring, notice = other.page.get_by_label("Import conversations from a file"), other.page.locator("#kept-notice")
    bring.set_input_files(path)
    expect(notice).to_contain_text("2 conversations imported")
    open_kept(other, "also")
    expect(other.questions).to_have_text("also")
    assert other.ask("and more") == "and more"
    # What went on differently here stays; what is the same is not doubled.
    bring.set_input_files(path)
    expect(notice).to_contain_text("2 conversations imported")
    other.page.wait_for_timeout(300)
    titles = other.page.evaluate(
        "Object.entries(localStorage).map(one => [JSON.parse(one[1]).title, JSON.parse(one[1]).turns.length])"
    )
    assert sorted(titles) == [["also", 1], ["also", 2], ["to be taken along", 1]]
    bring.set_input_files(FilePayload(name="x.json", mimeType="application/json", buffer=b"[{}]"))
    expect(notice.get_by_role("alert")).to_contain_text("Conversation 1 of the file")
    other.close()
    assert other.complaints == []


def test_a_full_browser_says_so_and_the_chat_goes_on(tab: PlaygroundPage):
    tab.page.evaluate(
        """() => { for (let size = 4e6; size > 0.5; size /= 2) {
            try { for (let n = 0; ; n++) localStorage.setItem(`full-${size}-${n}`, 'x'.repeat(size)); } catch {}
        } }"""
    )
    assert tab.ask("no room") == "no room"
    expect(tab.page.locator("#kept-notice")).to_contain_text("keeps no more")
    assert tab.ask("goes on") == "goes on"


def test_a_browser_that_keeps_nothing_says_so_and_the_chat_goes_on(blank: PlaygroundPage):
    blank.page.add_init_script(
        """Object.defineProperty(window, 'localStorage', {configurable: true, get() {
            throw new DOMException('kept from pages', 'SecurityError'); }})"""
    )
    blank.open()
    assert blank.ask("still here") == "still here"
    expect(blank.page.locator("#kept-notice")).to_contain_text("keeps no more")
    blank.page.evaluate("Object.defineProperty(window, 'localStorage', {value: sessionStorage})")


def test_the_exact_request_is_there_as_code_without_the_key(tab: PlaygroundPage, house: House):
    tab.set_key("k-that-nobody-may-see")
    tab.set_system_prompt("Don't.")
    tab.ask("what's $this?")
    tab.page.get_by_role("button", name="Last request as code").click()
    curl = tab.page.locator("#curl .cm-content")
    expect(curl).to_contain_text("/m/quick/v1/chat/completions")
    code = curl.inner_text().replace("\n\n", "\n")
    assert "k-that-nobody-may-see" not in tab.page.locator("#code").inner_html()
    assert "$GATEWAY_API_KEY" in code
    path, body = house.asked[-1]
    subprocess.run(["bash", "-c", code], check=True, capture_output=True, timeout=30)
    assert house.asked[-1] == (path, body)
    assert len(house.asked) >= 2
    expect(tab.page.locator("#python .cm-content")).to_contain_text("OpenAI(base_url=")


def test_text_files_are_picked_and_dropped_into_the_message(tab: PlaygroundPage, house: House):
    picker, told = tab.page.get_by_label("Add text files to the message"), tab.page.locator("#bar output")
    tab.prompt.fill("Read:")
    picker.set_input_files(
        [
            FilePayload(name="a.py", mimeType="text/x-python", buffer=b"x = '```'\n"),
            FilePayload(name="b.bin", mimeType="application/octet-stream", buffer=b"\xff\xfe\x00"),
            FilePayload(name="c.txt", mimeType="text/plain", buffer=b"x" * 200_001),
        ]
    )
    expect(told).to_have_text("a.py was added to the message. b.bin is not a text file. c.txt is larger than 200 kB.")
    data = tab.page.evaluate_handle(
        "() => { const held = new DataTransfer(); held.items.add(new File(['drôle'], 'd.txt')); return held; }"
    )
    tab.page.locator("#chat").dispatch_event("drop", {"dataTransfer": data})
    expect(told).to_have_text("d.txt was added to the message.")
    tab.prompt.press("Enter")
    expect(tab.facts).to_have_count(1)
    assert contents(house) == ["Read:\na.py:\n````\nx = '```'\n````\n\nd.txt:\n```\ndrôle\n```\n"]


def test_keys_do_what_the_page_says(tab: PlaygroundPage, house: House):
    page = tab.page
    for key in ("Enter", "Shift Enter", "Esc", "/", "Alt N", "Alt R", "Alt E"):
        expect(page.locator("#bar kbd").get_by_text(key, exact=True)).to_have_count(1)
    tab.pick("slow")
    tab.prompt.fill("word " * 60)
    tab.prompt.press("Enter")
    expect(tab.answers).to_have_count(1)
    page.keyboard.press("Escape")
    expect(tab.facts).to_contain_text("stopped")
    assert until(lambda: house.running() == 0, 1.5)
    tab.pick("quick")
    before = len(house.asked)
    page.keyboard.press("Alt+r")
    expect(tab.facts).to_have_text(re.compile("301 tokens .* quick$"))
    assert len(house.asked) == before + 1
    # Gradio takes no edits until it has heard that the answer is over, a moment after its last words.
    expect(page.get_by_label("Edit").last).to_be_enabled()
    page.keyboard.press("Alt+e")
    field = page.locator("#chat textarea")
    expect(field).to_have_value("word " * 60)
    page.get_by_label("Cancel").click()
    page.locator("h1").click()
    page.keyboard.press("/")
    expect(tab.prompt).to_be_focused()
    page.keyboard.type("a/b")
    expect(tab.prompt).to_have_value("a/b")
    page.keyboard.press("Alt+n")
    expect(tab.questions).to_have_count(0)


def test_mathematics_code_and_tables_are_set(tab: PlaygroundPage):
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.ask(
        "$$a<b^2$$ and \\(x_1\\) for $5 and $6 <b>\n\n"
        "```html\n<b>1 < 2</b> &amp;\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )
    answer = tab.answers.last
    expect(answer.locator(".katex")).to_have_count(2)
    expect(answer.locator(".katex-error")).to_have_count(0)
    expect(answer).to_contain_text("for $5 and $6")
    expect(answer.locator("b")).to_have_count(0)
    expect(answer.locator("table td")).to_have_text(["1", "2"])
    answer.locator("pre").hover()
    answer.get_by_title("copy", exact=True).first.click()
    assert tab.page.evaluate("navigator.clipboard.readText()").strip() == "<b>1 < 2</b> &amp;"
    tab.page.get_by_label("Copy message").last.click()
    assert "$6 <b>\n\n```html\n<b>1 < 2</b>" in tab.page.evaluate("navigator.clipboard.readText()")
    answer.locator("pre").click(click_count=3)
    tab.page.keyboard.press("ControlOrMeta+c")
    assert "\u2060" not in tab.page.evaluate("navigator.clipboard.readText()")
    assert tab.facts.last.inner_text().endswith("quick")
