"""A person at the real page: real browser, real gateway, real model."""

from __future__ import annotations

import pytest

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
