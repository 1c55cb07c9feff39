"""A house with echo models for the page, a browser, and a tab that complains of what no page should do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Browser, BrowserContext

from gateway_playground.library import import_gradio
from tests.playground.driver import PlaygroundPage, chromium
from tests.playground.hostile import unharmed
from tests.playground.house import House, on_a_port

import_gradio()

KEY = "k-for-this-test-only"


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with on_a_port(House) as (_, house):
        yield house


@pytest.fixture(scope="module")
def locked_house() -> Iterator[House]:
    """A house that asks for KEY."""
    with on_a_port(partial(House, keys=(KEY,))) as (_, house):
        yield house


@pytest.fixture(scope="module")
def playground_url(house: House) -> str:
    return f"{house.base_url}/playground"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: while Playwright's synchronous half is open, no asyncio test can run in this thread."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def window(browser: Browser) -> Iterator[BrowserContext]:
    """What pages of one module share is the files that Chromium has fetched already."""
    context = browser.new_context(viewport={"width": 1200, "height": 850})
    yield context
    context.close()


@pytest.fixture
def blank(window: BrowserContext, playground_url: str) -> Iterator[PlaygroundPage]:
    """A page that is not opened yet. At the end it must be unharmed; what it has kept is gone with it."""
    tab = PlaygroundPage(window.new_page(), playground_url)
    yield tab
    unharmed(tab)
    tab.page.evaluate("localStorage.clear()")
    tab.page.close()


@pytest.fixture
def tab(blank: PlaygroundPage) -> PlaygroundPage:
    """An opened page, in which everything is as `blank` says."""
    return blank.open()
