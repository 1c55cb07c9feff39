"""A person at the real page: real browser, real gateway, real model."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.playground.driver import PlaygroundPage, chromium
from tests.running import Gateway

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("model", ["smollm2", "smollm2-onnx", "smollm2-torch", "chat"])
def test_a_person_asks_and_sees_the_answer_and_its_facts(gateway: Gateway, model: str) -> None:
    with chromium() as browser:
        tab = PlaygroundPage.tab(browser, f"{gateway.url}/playground").open()
        tab.pick(model)
        tab.set_temperature(0)
        answer = tab.ask("What is the capital of France?")
        assert "The capital of France is Paris." in answer
        facts = tab.facts.last.inner_text()
        assert "tokens" in facts
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
        tab.close()
        assert tab.complaints == []
        assert tab.hosts == {gateway.url.split("/")[2]}
