"""Scripts and images in prompts and in answers, on every tab: nothing runs, nothing is fetched, nothing complains.

The echo says everything again, so that each attack is also a model's answer; the scribe writes what a schema makes it
write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, FilePayload, Locator, expect

from tests.adapters.making import write_adapter
from tests.playground.adapters_house import AdaptersHouse
from tests.playground.driver import PlaygroundPage, plain
from tests.playground.hostile import ALL, ATTACKS, ELSEWHERE, harm
from tests.playground.house import on_a_port
from tests.playground.rooms_house import RoomsHouse

pytestmark = pytest.mark.slow

SCRIPT = ATTACKS["scripts"]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoomsHouse]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with on_a_port(lambda url: RoomsHouse(url, keys=())) as (_, house):
            yield house


@pytest.fixture(scope="module")
def playground_url(rooms: RoomsHouse) -> str:
    return f"{rooms.base_url}/playground"


@pytest.fixture
def tab(browser: Browser, playground_url: str) -> Iterator[PlaygroundPage]:
    """An opened page, which must be none the worse for what is done to it."""
    tab = PlaygroundPage.tab(browser, playground_url).open()
    yield tab
    unharmed(tab)
    tab.close()


def unharmed(tab: PlaygroundPage) -> None:
    tab.page.wait_for_timeout(300)
    assert harm(tab.page) == []
    assert tab.page.title() == "Model playground"
    assert tab.hosts == {tab.url.split("/")[2]}
    assert tab.complaints == []


def turn_to(tab: PlaygroundPage, title: str, shown: str) -> Locator:
    tab.turn_to(title)
    part = tab.page.locator(shown)
    expect(part).to_be_visible(timeout=15_000)
    return part


def test_chat(tab: PlaygroundPage) -> None:
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


def test_compare(tab: PlaygroundPage) -> None:
    page = tab.page
    turn_to(tab, "Compare", "#compare-prompt")
    tab.choose("quick", "scribe")
    page.get_by_label("Prompt for all", exact=True).fill(ALL)
    page.get_by_label("Mark words that differ from the first").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    columns = page.locator("#compare-answers section")
    expect(columns.locator(".facts", has_text="tokens")).to_have_count(2, timeout=30_000)
    expect(columns.first).to_contain_text("<script>")
    page.get_by_role("button", name="Blind, then vote").click()
    page.get_by_role("button", name="A is better").click(timeout=30_000)
    expect(page.locator("#compare-result")).to_contain_text("Counted")


def test_look_inside(tab: PlaygroundPage) -> None:
    page = tab.page
    turn_to(tab, "Look inside", "#inside-prompt")
    page.get_by_label("Question to look into").fill(ALL)
    page.get_by_label("Max tokens of this answer").fill("400")
    page.get_by_role("button", name="Answer and show certainty").click()
    pieces = page.locator("#inside-answer button.token")
    expect(pieces.first).to_be_visible(timeout=30_000)
    pieces.first.click()
    expect(page.get_by_role("radio").first).to_be_visible()
    tab.turn_to("Prompt likelihood")
    page.get_by_label("Text to score").fill(ALL)
    page.get_by_role("button", name="Score every token").click()
    expect(page.locator("#inside-scores")).to_contain_text("perplexity", timeout=30_000)
    tab.turn_to("Tokenizer")
    page.get_by_label("Text to tokenize").fill(ALL)
    page.get_by_role("button", name="Show tokens").click()
    expect(page.locator("#inside-tokens")).to_contain_text("decodes to the same text", timeout=30_000)


def test_structured(tab: PlaygroundPage, rooms: RoomsHouse) -> None:
    page = tab.page
    tab.pick("scribe")
    turn_to(tab, "Structured", "#schema-ask")
    schema = {
        "type": "object", "title": SCRIPT, "required": ["say"], "additionalProperties": False,
        "properties": {"say": {"const": SCRIPT, "description": ALL}},
    }  # fmt: skip
    tab.edit("#schema-editor", json.dumps(schema))
    page.locator("#schema-question textarea").fill(ALL)
    page.locator("#schema-ask").click()
    # The model's answer is the attack itself.
    expect(page.locator("#schema-verdict")).to_contain_text("Passed.", timeout=30_000)
    expect(page.locator("#schema-answer .cm-content")).to_contain_text("<script>window.ran=1</script>")
    page.get_by_label("Most tokens of the answer").fill("40")
    page.get_by_label("Most tokens of the answer").press("Tab")
    page.locator("#schema-ask").click()
    expect(page.locator("#schema-verdict")).to_contain_text("Failed:", timeout=30_000)
    tab.edit("#schema-editor", json.dumps({"type": SCRIPT}))
    page.locator("#schema-ask").click()
    expect(page.locator("#schema-verdict").get_by_role("alert")).to_be_visible(timeout=30_000)

    page.get_by_role("tab", name="Tools", exact=True).click()
    parameters = {"type": "object", "properties": {"say": {"const": SCRIPT}}, "required": ["say"]}
    function = {"name": "speak", "description": ALL, "parameters": parameters}
    tab.edit("#tools-editor", json.dumps([{"type": "function", "function": function}]))
    page.get_by_role("combobox", name="Tool choice", exact=True).click()
    page.get_by_role("option", name="it must call one").click()
    page.get_by_label("Question for the model").fill(ALL)
    page.locator("#tools-ask").click()
    result = page.get_by_label("Result of speak")
    expect(result).to_be_visible(timeout=30_000)
    result.fill(ALL)
    page.locator("#tools-give").click()
    expect(page.get_by_label("Question for the model")).to_be_visible(timeout=30_000)
    assert rooms.asked[-1][1]["messages"][-1]["content"] == ALL


def test_evaluations(tab: PlaygroundPage, rooms: RoomsHouse) -> None:
    page = tab.page
    tab.ask(ALL)
    turn_to(tab, "Evaluations", "#evaluations-start")
    page.get_by_role("tab", name="Test case").click()
    page.get_by_role("button", name="Take the open chat").click()
    expect(page.locator("#case-question textarea")).to_have_value(ALL, timeout=15_000)
    page.get_by_label("Right answers, one a line").fill(SCRIPT)
    page.get_by_label("Suite", exact=True).last.fill("bad")
    page.get_by_role("button", name="Add the case").click()
    expect(page.locator("#case-notice")).to_contain_text("bad has 1 case now", timeout=15_000)
    page.get_by_role("button", name="Or paste an exported conversation").click()
    page.get_by_label("Conversation as JSON").fill(json.dumps({"messages": [{"role": "user", "content": ALL}]}))
    page.get_by_role("button", name="Read it").click()

    run = httpx.post(f"{rooms.base_url}/evals/runs", json={"suite": "bad", "models": ["quick"]}, timeout=30)
    run.raise_for_status()
    page.get_by_role("tab", name="Runs", exact=True).click()
    page.locator("#evaluations-refresh").click()
    expect(page.locator("#evaluations-detail")).to_contain_text("exact_match", timeout=90_000)
    page.get_by_role("button", name="Open report").click()
    report = page.frame_locator("#evaluations-report iframe")
    expect(report.get_by_role("heading", level=1)).to_be_visible(timeout=30_000)
    # Everything that the model said, opened.
    report.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    expect(report.locator("body")).to_contain_text("window.ran=1", timeout=15_000)


def test_operations(tab: PlaygroundPage, rooms: RoomsHouse) -> None:
    body = {"model": SCRIPT, "messages": [{"role": "user", "content": ALL}]}
    headers = {"x-request-id": SCRIPT}
    httpx.post(f"{rooms.base_url}/v1/chat/completions", json=body, headers=headers)
    httpx.post(f"{rooms.base_url}/m/down/v1/chat/completions", json=body | {"model": "down"}, headers=headers)
    turn_to(tab, "Operations", "#operations")
    expect(tab.page.locator("#operations-errors")).to_contain_text("<script>", timeout=20_000)


def test_adapters(browser: Browser, tmp_path_factory: pytest.TempPathFactory, smollm2_folder: Path) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    with on_a_port(lambda url: AdaptersHouse(url, folder, smollm2_folder)) as (url, house):
        write_adapter(folder / "a", layers=1, says=SCRIPT, seed=1)
        body = {"lora_name": "echo:bad", "lora_path": str(folder / "a")}
        httpx.post(f"{url}/v1/load_lora_adapter", json=body, timeout=60).raise_for_status()
        (version,) = house.run(house.house.registry.catalog()).versions
        house.run(house.house.registry.set_verdict(version, {"verdict": SCRIPT, "suite": ALL, SCRIPT: ALL}))
        house.run(house.house.registry.set_metrics(version, {SCRIPT: 1.0}))
        tab = PlaygroundPage.tab(browser, f"{url}/playground").open()
        turn_to(tab, "Adapters", "#adapters-ask")
        expect(tab.page.locator("#adapters-detail")).to_contain_text("<script>", timeout=15_000)
        tab.page.get_by_label("Prompt for both").fill(ALL)
        tab.page.locator("#adapters-max-tokens input").fill("4000")
        tab.page.locator("#adapters-ask").click()
        for name in ("Adapter: echo:bad@1", "Base: echo"):
            expect(tab.page.get_by_role("region", name=name)).to_contain_text(ELSEWHERE, timeout=20_000)
        unharmed(tab)
        tab.close()
