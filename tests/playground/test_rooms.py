"""Structured, Evaluations and Operations as a person uses them: a real browser, a gateway in this process with keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Route, expect

from tests.playground.driver import PlaygroundPage
from tests.playground.hostile import ALL, SCRIPT, harm
from tests.playground.house import on_a_port
from tests.playground.rooms_house import KEY, RoomsHouse

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoomsHouse]:
    with pytest.MonkeyPatch.context() as patch:
        # Suites and runs lie in the person's state folder.
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with on_a_port(RoomsHouse) as (_, house):
            yield house


@pytest.fixture(scope="module")
def playground_url(rooms: RoomsHouse) -> str:
    return f"{rooms.base_url}/playground"


@pytest.fixture
def tab(blank: PlaygroundPage) -> PlaygroundPage:
    """An opened page of a person with a key."""
    blank.open(models=False)
    expect(blank.notice).to_contain_text("needs a key", timeout=20_000)
    blank.set_key(KEY)
    expect(blank.model).not_to_have_value("", timeout=20_000)
    return blank


def turn_to(tab: PlaygroundPage, title: str, shown: str) -> None:
    tab.turn_to(title)
    expect(tab.page.locator(shown)).to_be_visible(timeout=15_000)


def pick(tab: PlaygroundPage, label: str, option: str) -> None:
    tab.page.get_by_role("combobox", name=label, exact=True).click()
    tab.page.get_by_role("option", name=option).click()


def test_an_answer_is_held_to_a_schema_and_checked(tab: PlaygroundPage, rooms: RoomsHouse) -> None:
    tab.pick("scribe")
    turn_to(tab, "Structured", "#schema-ask")
    verdict = tab.page.locator("#schema-verdict")
    ask = tab.page.locator("#schema-ask")
    # Editors bear names that a screen reader can say.
    expect(tab.page.get_by_role("textbox", name="JSON schema", exact=True)).to_be_visible()
    ask.click()
    expect(verdict).to_contain_text("Passed.", timeout=20_000)
    expect(tab.page.locator("#schema-answer .cm-content")).to_contain_text('"age": 1')
    path, body = rooms.asked[-1]
    assert path == "/m/scribe/v1/chat/completions"
    assert body["response_format"]["json_schema"]["strict"] is True
    # Cut off, it keeps no schema, and the page says why and where.
    tab.page.get_by_label("Most tokens of the answer").fill("5")
    tab.page.get_by_label("Most tokens of the answer").press("Tab")
    ask.click()
    expect(verdict).to_contain_text("Failed:", timeout=20_000)
    expect(verdict).to_contain_text("cut off at its most tokens")
    expect(verdict.get_by_role("listitem")).to_contain_text("not JSON")
    tab.edit("#schema-editor", '{"type": "objekt"}')
    ask.click()
    expect(verdict.get_by_role("alert")).to_contain_text("not valid at $.type", timeout=20_000)
    # A schema can make a model write anything.
    title = {"const": SCRIPT, "description": ALL}
    schema = {"type": "object", "title": SCRIPT, "required": ["say"], "properties": {"say": title}}
    tab.edit("#schema-editor", json.dumps({**schema, "additionalProperties": False}))
    tab.page.get_by_label("Most tokens of the answer").fill("400")
    tab.page.get_by_label("Most tokens of the answer").press("Tab")
    ask.click()
    expect(verdict).to_contain_text("Passed.", timeout=20_000)
    expect(tab.page.locator("#schema-answer .cm-content")).to_contain_text("<script>window.ran=1</script>")
    assert harm(tab.page) == []
    # An engine without grammars says so.
    pick(tab, "Example", "A city")
    tab.pick("quick")
    ask.click()
    expect(verdict.get_by_role("alert")).to_contain_text("does not support", timeout=20_000)


def test_a_person_plays_the_tool(tab: PlaygroundPage, rooms: RoomsHouse) -> None:
    tab.pick("scribe")
    turn_to(tab, "Structured", "#schema-ask")
    tab.page.get_by_role("tab", name="Tools", exact=True).click()
    chat = tab.page.locator("#tools-chat")
    pick(tab, "Tool choice", "it must call one")
    tab.page.get_by_label("Question for the model").fill(ALL)
    tab.page.locator("#tools-ask").click()
    result = tab.page.get_by_label("Result of get_weather")
    expect(result).to_be_visible(timeout=20_000)
    expect(chat).to_contain_text('"unit":"celsius"')
    expect(chat).to_contain_text(re.compile("<\u2060?script>window.ran=1<\u2060?/script>"))
    expect(tab.page.locator("#tools-notice")).to_contain_text("get_weather keeps its schema")
    # What the tool says is text too.
    result.fill(ALL)
    tab.page.locator("#tools-give").click()
    expect(tab.page.get_by_label("Question for the model")).to_be_visible(timeout=20_000)
    _, body = rooms.asked[-1]
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool"]
    assert body["messages"][2]["content"] == ALL
    assert body["messages"][2]["tool_call_id"] == body["messages"][1]["tool_calls"][0]["id"]
    # A list of tools that is none loses nothing of what was written.
    tab.edit("#tools-editor", "[1]")
    tab.page.get_by_label("Question for the model").fill("and now?")
    tab.page.locator("#tools-ask").click()
    expect(tab.page.locator("#tools-notice")).to_contain_text('Tool 1 has no "function"', timeout=20_000)
    expect(tab.page.get_by_label("Question for the model")).to_have_value("and now?")
    tab.page.get_by_role("button", name="Start anew").click()
    expect(chat).not_to_contain_text("celsius")


def test_a_conversation_becomes_a_case_and_its_suite_is_run(tab: PlaygroundPage, rooms: RoomsHouse) -> None:
    tab.pick("quick")
    tab.ask("what was said in the chat")
    # From the chat it is one press.
    tab.page.get_by_role("button", name="Conversation", exact=False).last.click()
    tab.page.get_by_role("button", name="Make it a test case").click()
    notice = tab.page.locator("#case-notice")
    expect(tab.page.locator("#case-question textarea")).to_have_value("what was said in the chat", timeout=15_000)
    expect(tab.page.locator("#case-answers textarea")).to_have_value("what was said in the chat")
    tab.page.locator("#case-question textarea").fill("")
    tab.page.get_by_role("button", name="Take the open chat").click()
    expect(tab.page.locator("#case-question textarea")).to_have_value("what was said in the chat", timeout=15_000)
    tab.page.get_by_role("button", name="Or paste an exported conversation").click()
    pasted = tab.page.get_by_label("Conversation as JSON")
    pasted.fill("{}")
    tab.page.get_by_role("button", name="Read it").click()
    expect(notice).to_contain_text("no question in it", timeout=15_000)
    said = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "wrong"}]
    pasted.fill(json.dumps({"messages": [*said, {"role": "user", "content": ALL}]}))
    tab.page.get_by_role("button", name="Read it").click()
    expect(notice).to_contain_text("this question alone", timeout=15_000)
    expect(tab.page.locator("#case-question textarea")).to_have_value(ALL)
    add = tab.page.get_by_role("button", name="Add the case")
    add.click()
    expect(notice).to_contain_text("at least one right answer", timeout=15_000)
    tab.page.get_by_label("Right answers, one a line").fill(f"yes\n{SCRIPT}")
    add.click()
    expect(notice).to_contain_text("my-cases has 1 case now", timeout=15_000)
    add.click()
    expect(notice.get_by_role("alert")).to_contain_text("this case already", timeout=15_000)

    tab.page.get_by_role("tab", name="Runs", exact=True).click()
    tab.page.locator("#evaluations-refresh").click()
    pick(tab, "Suite", "my-cases")
    expect(tab.page.locator("#evaluations-about")).to_contain_text("added by hand")
    pick(tab, "Models to measure", "quick")
    tab.page.get_by_role("button", name="Start", exact=True).click()
    # Watched as it goes on: nobody presses anything until it is over.
    detail = tab.page.locator("#evaluations-detail")
    expect(detail).to_contain_text("done", timeout=90_000)
    expect(detail).to_contain_text("exact_match")
    expect(tab.page.locator("#evaluations-runs")).to_contain_text("my-cases")
    assert rooms.asked[-1][1]["messages"][-1]["content"] == ALL
    # Its report opens in its place, with the sample that was just added, and can be taken along.
    tab.page.get_by_role("button", name="Open report").click()
    report = tab.page.frame_locator("#evaluations-report iframe")
    expect(report.get_by_role("heading", level=1)).to_contain_text("my-cases", timeout=20_000)
    expect(report.locator("#figures tbody")).to_contain_text("exact_match")
    report.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    expect(report.locator("#samples")).to_contain_text("window.ran=1")
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Save report").click()
    assert download.value.suggested_filename.startswith("report-")
    assert "my-cases" in Path(download.value.path()).read_text()


def test_a_run_is_cancelled(tab: PlaygroundPage, rooms: RoomsHouse) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    for number in range(30):
        case = {"question": f"say {number} {'slowly ' * 12}", "answers": ["x"]}
        httpx.post(f"{rooms.base_url}/evals/suites/long/samples", json=case, headers=headers).raise_for_status()
    case = {"question": "say one", "answers": ["x"]}
    httpx.post(f"{rooms.base_url}/evals/suites/short/samples", json=case, headers=headers).raise_for_status()
    for body in ({"suite": "short", "models": ["quick"]}, {"suite": "long", "models": ["slow"]}):
        httpx.post(f"{rooms.base_url}/evals/runs", json=body, headers=headers, timeout=30).raise_for_status()
    turn_to(tab, "Evaluations", "#evaluations-start")
    detail = tab.page.locator("#evaluations-detail")
    pick(tab, "Run", "long")
    expect(detail).to_contain_text("of 30 samples", timeout=60_000)
    # A tick that comes back after another run was picked does not draw its own over it.
    late: list[Route] = []
    tab.page.route("**/gradio_api/run/**", lambda route: late.append(route), times=1)
    with tab.page.expect_request("**/gradio_api/run/**"):
        pass
    pick(tab, "Run", "short")
    expect(detail).to_contain_text("short")
    (tick,) = late
    with tab.page.expect_response(lambda answer: answer.request == tick.request):
        tick.continue_()
    tab.page.wait_for_timeout(300)
    assert "of 30 samples" not in detail.inner_text()
    pick(tab, "Run", "long")
    expect(detail).to_contain_text("of 30 samples")
    tab.page.get_by_role("button", name="Cancel run").click()
    expect(detail).to_contain_text("cancelled", timeout=30_000)
    expect(tab.page.get_by_role("button", name="Cancel run")).not_to_be_visible()
    # Who chooses while the lists are on their way keeps what was chosen.
    suite = tab.page.get_by_role("combobox", name="Suite", exact=True)
    expect(suite).not_to_have_value("smoke")
    held: list[Route] = []
    tab.page.route("**/gradio_api/run/**", lambda route: held.append(route), times=1)
    tab.page.locator("#evaluations-refresh").click()
    pick(tab, "Suite", "smoke")
    expect(suite).to_have_value("smoke")
    (refreshed,) = held
    with tab.page.expect_response(lambda answer: answer.request == refreshed.request):
        refreshed.continue_()
    tab.settle()
    expect(suite).to_have_value("smoke")


def test_operations_are_live_while_they_are_looked_at(tab: PlaygroundPage, rooms: RoomsHouse) -> None:
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": SCRIPT}
    turn_to(tab, "Operations", "#operations")
    shown = tab.page.locator("#operations")
    expect(shown.get_by_role("region", name="Models")).to_contain_text("scribe", timeout=15_000)
    body = {"model": "quick", "stream": True, "messages": [{"role": "user", "content": "a few tokens"}]}
    httpx.post(f"{rooms.base_url}/v1/chat/completions", json=body, headers=headers).raise_for_status()
    httpx.post(f"{rooms.base_url}/m/down/v1/completions", json={"prompt": "x"}, headers=headers)
    # It comes by itself.
    errors = tab.page.locator("#operations-errors")
    expect(errors).to_contain_text("unavailable", timeout=20_000)
    expect(errors).to_contain_text("<script>window.ran=1</script>")
    tokens = shown.get_by_role("img", name="Tokens per second")
    expect(tokens).to_have_accessible_name(re.compile("^Tokens per second: now"), timeout=20_000)
    looks = rooms.looks
    tab.turn_to("Chat")
    expect(tab.prompt).to_be_visible()
    tab.page.wait_for_timeout(500)
    before = rooms.looks
    tab.page.wait_for_timeout(2500)
    assert looks > 0
    assert rooms.looks == before
