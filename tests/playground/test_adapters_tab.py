"""The Adapters tab as a person uses it: a real browser, the real registry, and echo that says which one answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.adapters.making import write_adapter
from tests.playground.adapters_house import AdaptersHouse
from tests.playground.driver import PlaygroundPage
from tests.playground.hostile import ALL, ELSEWHERE, SCRIPT, unharmed
from tests.playground.house import on_a_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory, smollm2_folder: Path) -> Iterator[AdaptersHouse]:
    folder = tmp_path_factory.mktemp("adapters")
    with on_a_port(lambda url: AdaptersHouse(url, folder, smollm2_folder)) as (_, house):
        yield house


def load(rooms: AdaptersHouse, folder: Path, says: str) -> None:
    write_adapter(folder, layers=1, says=says, seed=ord(says[0]))
    body = {"lora_name": "echo:support", "lora_path": str(folder), "load_inplace": True}
    httpx.post(f"{rooms.base_url}/v1/load_lora_adapter", json=body, timeout=60).raise_for_status()


def test_an_adapter_is_picked_known_and_compared_with_its_base(
    browser: Browser, rooms: AdaptersHouse, tmp_path: Path
) -> None:
    tab = PlaygroundPage.tab(browser, f"{rooms.base_url}/playground").open()
    page = tab.page
    tab.turn_to("Adapters")
    expect(page.locator("#adapters-list")).to_contain_text("No adapter is registered", timeout=15_000)
    load(rooms, tmp_path / "a", "A")
    load(rooms, tmp_path / "b", SCRIPT)
    first, second = rooms.run(rooms.house.registry.catalog()).versions
    rooms.run(rooms.house.registry.promote(first))
    rooms.run(rooms.house.registry.set_verdict(second, {"verdict": "worse", "suite": SCRIPT, "p": 0.01234}))
    rooms.run(rooms.house.registry.set_metrics(second, {"loss": {"first": 2.5, "last": 0.5}}))
    page.locator("#adapters-refresh").click()
    listed = page.get_by_role("region", name="Adapters", exact=True)
    expect(listed.get_by_role("row").nth(1)).to_contain_text("prod", timeout=15_000)
    expect(listed.get_by_role("row").nth(2)).to_contain_text("worse")

    page.get_by_role("combobox", name="Adapter", exact=True).click()
    page.get_by_role("option", name="echo:support@2").click()
    detail = page.locator("#adapters-detail")
    expect(detail).to_contain_text("loss.last", timeout=15_000)
    expect(detail).to_contain_text("0.01234")
    expect(detail).to_contain_text(SCRIPT)

    prompt = page.get_by_label("Prompt for both")
    page.locator("#adapters-ask").click()
    expect(page.locator("#adapters-notice")).to_contain_text("the prompt is empty", timeout=15_000)
    prompt.fill(ALL)
    page.locator("#adapters-max-tokens input").fill("4000")
    page.locator("#adapters-ask").click()
    left = page.get_by_role("region", name="Adapter: echo:support@2")
    right = page.get_by_role("region", name="Base: echo")
    expect(left).to_contain_text(f"{SCRIPT}: {SCRIPT}", timeout=20_000)
    expect(left).to_contain_text(ELSEWHERE)
    expect(right).to_contain_text(SCRIPT)
    expect(right).not_to_contain_text(f"{SCRIPT}: {SCRIPT}")
    expect(left).to_contain_text("first after")
    # Adapters are compared like models.
    tab.turn_to("Compare")
    tab.page.get_by_role("button", name="Refresh models").click()
    tab.choose("echo", "echo:support")
    page.get_by_label("Prompt for all", exact=True).fill("who are you?")
    page.get_by_role("button", name="Compare", exact=True).click()
    columns = page.locator("#compare-answers section")
    expect(columns.locator(".facts", has_text="tokens")).to_have_count(2, timeout=30_000)
    expect(columns.nth(1)).to_contain_text("who are you?")
    unharmed(tab)
    tab.close()
