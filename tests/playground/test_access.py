"""Every tab for whoever cannot see it or has no mouse: names in the accessibility tree, and room on a telephone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.playground.driver import PlaygroundPage
from tests.playground.house import on_a_port
from tests.playground.rooms_house import RoomsHouse

pytestmark = pytest.mark.slow

TITLES = ("Chat", "Compare", "Look inside", "Structured", "Adapters", "Evaluations", "Operations")
INNER = {
    "Look inside": ("Answer", "Prompt likelihood", "Tokenizer"),
    "Structured": ("JSON schema", "Tools"),
    "Evaluations": ("Runs", "Test case"),
}

ASKED_FOR_NAMES = {
    "button", "textbox", "searchbox", "combobox", "listbox", "option", "slider", "spinbutton", "checkbox", "radio",
    "tab", "link", "progressbar", "Iframe", "region", "dialog", "switch", "menuitem", "image",
}  # fmt: skip
"""Roles that say nothing without a name."""


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoomsHouse]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with on_a_port(lambda url: RoomsHouse(url, keys=())) as (_, house):
            yield house


@pytest.fixture(scope="module")
def playground_url(rooms: RoomsHouse) -> str:
    return f"{rooms.base_url}/playground"


def nameless(tab: PlaygroundPage) -> list[str]:
    """Parts of Chromium's accessibility tree that a screen reader could only call by their kind."""
    session = tab.page.context.new_cdp_session(tab.page)
    found: list[str] = []
    for node in session.send("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        if node["ignored"] or role not in ASKED_FOR_NAMES or node.get("name", {}).get("value", "").strip():
            continue
        where = session.send("DOM.describeNode", {"backendNodeId": node["backendDOMNodeId"]})["node"]
        if where["localName"] == "svg" and "role" not in where["attributes"]:
            # Gradio's own ornaments, inside of controls that have names.
            continue
        found.append(f"{role}: <{where['localName']} {where.get('attributes')}>")
    session.detach()
    return found


def unfold(tab: PlaygroundPage) -> None:
    """Open everything on the tab that can be opened."""
    folds = tab.page.locator("[role=tabpanel] button.label-wrap:visible")
    for index in range(folds.count()):
        if folds.nth(index).evaluate("one => !one.classList.contains('open')"):
            folds.nth(index).click()


def beyond(page: Page) -> list[str]:
    """What stands out of the screen, other than what scrolls by itself."""
    return page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, select, h3, p')]
            .filter(one => one.offsetParent && !one.closest('.wide, pre, .cm-editor, .tab-wrapper, table'))
            .map(one => [one.getBoundingClientRect(), one.outerHTML.slice(0, 160)])
            .filter(([box]) => box.width && (box.left < -1 || box.right > innerWidth + 1)).map(([, text]) => text)"""
    )


def test_every_part_of_every_tab_has_a_name_and_room_on_a_telephone(tab: PlaygroundPage):
    tab.page.set_viewport_size({"width": 390, "height": 800})
    tab.ask("```\n" + "a_line_that_is_longer_than_a_telephone_is_wide " * 4 + "\n```\n" + "w" * 120)
    tab.set_key("")
    for title in TITLES:
        tab.turn_to(title)
        for inner in INNER.get(title, ("",)):
            if inner:
                tab.turn_to(inner)
            unfold(tab)
            tab.page.wait_for_timeout(300)
            assert nameless(tab) == [], (title, inner)
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390, (title, inner)
            assert beyond(tab.page) == [], (title, inner)


def test_tabs_and_the_conversation_are_reached_by_keyboard(tab: PlaygroundPage):
    page = tab.page
    page.get_by_role("tab", name="Chat", exact=True).focus()
    page.keyboard.press("Tab")
    reached: list[str] = []
    for _ in range(16):
        reached.append(
            page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText || ''").strip()
        )
        page.keyboard.press("Tab")
    for name in ("Compare", "New chat", "Send", "Conversations kept in this browser"):
        assert any(name in one for one in reached), (name, reached)
    expect(tab.prompt).to_be_visible()
