"""A person at the real page: real browser, real gateway, real model."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import expect

from tests.loras import write_lora
from tests.playground.driver import PlaygroundPage, chromium
from tests.playground.test_rooms import pick
from tests.running import Gateway

pytestmark = pytest.mark.slow


def test_a_person_asks_every_model_and_sees_answers_and_their_facts(gateway: Gateway) -> None:
    with chromium() as browser:
        tab = PlaygroundPage.tab(browser, f"{gateway.url}/playground").open()
        tab.set_temperature(0)
        for model in ("smollm2", "smollm2-onnx", "smollm2-torch", "chat"):
            tab.page.get_by_role("button", name="New chat").click()
            expect(tab.questions).to_have_count(0)
            tab.pick(model)
            answer = tab.ask("What is the capital of France?")
            assert "The capital of France is Paris." in answer
            facts = tab.facts.last.inner_text()
            assert re.search(r"first token .* · \d+ tokens · prompt \d+ · smollm2", facts), facts
        tab.close()
        assert tab.complaints == []


def test_the_other_rooms_on_real_models(gateway: Gateway) -> None:
    with chromium() as browser:
        tab = PlaygroundPage.tab(browser, f"{gateway.url}/playground").open()
        tab.pick("smollm2-torch")
        tab.turn_to("Structured")
        page = tab.page
        page.locator("#schema-ask").click(timeout=30_000)
        expect(page.locator("#schema-verdict")).to_contain_text("Passed.", timeout=90_000)
        expect(page.locator("#schema-answer .cm-content")).to_contain_text('"languages"')
        tab.turn_to("Operations")
        models = page.locator("#operations").get_by_role("region", name="Models")
        for model in ("smollm2", "smollm2-onnx", "smollm2-torch"):
            expect(models.get_by_role("row", name=re.compile(rf"^{model} \w+ up 1 running"))).to_be_visible(
                timeout=30_000
            )
        expect(page.locator("#operations").get_by_role("region", name="Routes and apps")).to_contain_text("playground")
        tab.turn_to("Evaluations")
        expect(page.get_by_role("combobox", name="Suite", exact=True)).not_to_have_value("", timeout=30_000)
        tab.turn_to("Compare")
        tab.choose("smollm2", "smollm2-onnx", "smollm2-torch")
        page.get_by_label("Prompt for all", exact=True).fill("What is the capital of France?")
        page.get_by_label("Max tokens for all").fill("12")
        page.get_by_role("button", name="Compare", exact=True).click()
        columns = page.locator("#compare-answers section")
        expect(columns.locator(".facts", has_text="first token")).to_have_count(3, timeout=60_000)
        tab.turn_to("Look inside")
        page.get_by_label("Question to look into").fill("What is the capital of France?")
        page.get_by_label("Max tokens of this answer").fill("8")
        page.get_by_role("button", name="Answer and show certainty").click()
        expect(page.locator("#inside-answer button.token", has_text="Paris")).to_be_visible(timeout=60_000)
        tab.turn_to("Adapters")
        expect(page.locator("#adapters-list")).to_contain_text("adapter", ignore_case=True, timeout=30_000)
        assert "gateway:Gateway" not in " ".join(of_the_page(gateway).cmdline())
        tab.close()
        assert tab.complaints == []
        assert tab.hosts == {gateway.url.split("/")[2]}


def test_a_suite_is_run_and_an_adapter_compared_on_a_real_model(
    gateway: Gateway, smollm2_folder: Path, tmp_path: Path
) -> None:
    folder = write_lora(tmp_path / "lora", smollm2_folder, seed=3, scale=0.02).path
    loaded = {"lora_name": "smollm2-onnx:tab", "lora_path": str(folder)}
    answer = httpx.post(f"{gateway.url}/v1/load_lora_adapter", json=loaded, timeout=120)
    assert answer.status_code == 200, answer.text
    with chromium() as browser:
        tab = PlaygroundPage.tab(browser, f"{gateway.url}/playground").open()
        page = tab.page
        tab.turn_to("Adapters")
        page.locator("#adapters-refresh").click()
        pick(tab, "Adapter", "smollm2-onnx:tab@1")
        expect(page.locator("#adapters-detail")).to_contain_text("digest of its base", timeout=30_000)
        page.get_by_label("Prompt for both").fill("What is the capital of France?")
        page.locator("#adapters-max-tokens input").fill("12")
        page.locator("#adapters-ask").click()
        for column in ("Adapter: smollm2-onnx:tab@1", "Base: smollm2-onnx"):
            expect(page.get_by_role("region", name=column)).to_contain_text("first after", timeout=60_000)
        expect(page.get_by_role("region", name="Base: smollm2-onnx")).to_contain_text("Paris")
        tab.turn_to("Evaluations")
        page.locator("#evaluations-refresh").click()
        pick(tab, "Suite", "smoke")
        pick(tab, "Models to measure", "smollm2-onnx:tab")
        page.locator("#evaluations-limit input").fill("2")
        page.get_by_role("button", name="Start", exact=True).click()
        # Until it has begun, an older run may stand there, which is done.
        expect(page.locator("#evaluations-detail")).to_contain_text("smollm2-onnx:tab · done", timeout=120_000)
        page.get_by_role("button", name="Open report").click()
        report = page.frame_locator("#evaluations-report iframe")
        expect(report.get_by_role("heading", level=1)).to_contain_text("smoke", timeout=20_000)
        tab.close()
        assert tab.complaints == []
        assert tab.hosts == {gateway.url.split("/")[2]}
    gone = httpx.post(f"{gateway.url}/v1/unload_lora_adapter", json={"lora_name": "smollm2-onnx:tab"}, timeout=60)
    assert gone.status_code == 200


def of_the_page(gateway: Gateway) -> psutil.Process:
    """The process of the page, which is its own: nothing of the API is in it."""
    (replica,) = [p for p, command in gateway.commands().items() if "ServeReplica:app-playground" in " ".join(command)]
    return replica


@pytest.mark.proof
def test_the_api_goes_on_while_the_page_is_dead_and_the_page_comes_back(gateway: Gateway) -> None:
    page = f"{gateway.url}/playground/"
    body = {"messages": [{"role": "user", "content": "one word after the other " * 4}], "stream": True}
    with httpx.stream("POST", f"{gateway.url}/m/echo-slow/v1/chat/completions", json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        replica = of_the_page(gateway)
        replica.kill()
        replica.wait(20)
        asked = {"model": "echo", "messages": [{"role": "user", "content": "still there?"}]}
        for _ in range(20):
            whole = httpx.post(f"{gateway.url}/v1/chat/completions", json=asked, timeout=10)
            assert whole.json()["choices"][0]["message"]["content"] == "still there?"
        assert list(lines)[-2] == "data: [DONE]"
    deadline = time.monotonic() + 90
    while True:
        try:
            if httpx.get(page, timeout=10).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, "the page did not come back"
        time.sleep(0.5)
