"""A house with echo models for the page, a browser, and a tab that complains of what no page should do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Browser

from tests.playground.driver import PlaygroundPage, chromium
from tests.playground.house import House, on_a_port

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


@pytest.fixture
def tab(browser: Browser, playground_url: str) -> Iterator[PlaygroundPage]:
    """An opened page. At the end: nothing in the console, and nobody asked but the page's own server."""
    tab = PlaygroundPage.tab(browser, playground_url).open()
    yield tab
    tab.close()
    assert tab.complaints == []
    assert tab.hosts == {playground_url.split("/")[2]}
