"""Scripts and images in prompts, answers, titles and files of the Chat tab: nothing runs, nothing is fetched.

The other tabs are put to the same in test_tabs.py, test_rooms.py and test_adapters_tab.py, each where it is used.
"""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import FilePayload, expect

from tests.playground.driver import PlaygroundPage, plain
from tests.playground.hostile import ALL, ATTACKS, SCRIPT

pytestmark = pytest.mark.slow


def test_what_people_and_models_write_is_text(tab: PlaygroundPage) -> None:
    for attack in ATTACKS.values():
        tab.ask(attack)
    assert "<script>" in plain(tab.questions.first.inner_text())
    tab.page.get_by_role("button", name="Conversation", exact=False).last.click()
    # Titles, branches and files of conversations are written by others as well.
    turn = {
        "question": ALL,
        "model": SCRIPT,
        "answer": ALL,
        "reasoning": ALL,
        "target": SCRIPT,
        "failure": "",
        "done": True,
    }
    failed = {**turn, "failure": ALL}
    document = {"id": "bad", "title": SCRIPT, "turns": [turn, failed], "branches": [[failed], [turn]], "system": ALL}
    file = FilePayload(name="x.json", mimeType="application/json", buffer=json.dumps(document).encode())
    tab.page.get_by_label("Import conversations from a file").set_input_files(file)
    expect(tab.page.locator("#kept-notice")).to_contain_text("1 conversation imported")
    tab.page.get_by_label("Conversations kept in this browser").click()
    tab.page.get_by_role("option", name=SCRIPT, exact=True).click()
    expect(tab.failures).to_have_count(1)
    tab.page.get_by_label("Branches of this conversation").click()
    expect(tab.page.get_by_role("option")).to_have_count(3)
    tab.page.keyboard.press("Escape")
    bad = FilePayload(name=SCRIPT.replace("/", ""), mimeType="application/json", buffer=json.dumps([SCRIPT]).encode())
    tab.page.get_by_label("Import conversations from a file").set_input_files(bad)
    expect(tab.page.locator("#kept-notice").get_by_role("alert")).to_be_visible()
    tab.page.get_by_label("Add text files to the message").set_input_files(bad)
    expect(tab.page.locator("#bar output")).to_contain_text("<script>")
