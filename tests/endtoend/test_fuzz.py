"""Requests that nobody should send, to the running gateway and every engine: refused, answered, and survived."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.fuzzing import fuzz
from tests.running import Gateway

ENGINES = ("smollm2", "smollm2-onnx", "smollm2-torch")

pytestmark = pytest.mark.slow


def replicas(gateway: Gateway) -> set[int]:
    """Processes of replicas and engines: a restart would show as another."""
    return {
        process.pid
        for process, command in gateway.commands().items()
        if any(name in " ".join(command) for name in ("ServeReplica", "VLLM::"))
    }


def survives(gateway: Gateway, cases: int) -> None:
    before = replicas(gateway)
    assert len(before) > len(ENGINES)
    found = fuzz(gateway.url, ENGINES, cases)
    assert found.failures == [], f"{len(found.failures)} of {found.cases}"
    assert found.cases >= cases
    assert found.statuses[200] >= cases // 50
    assert found.statuses[400] >= cases // 10
    assert replicas(gateway) == before
    for model in ENGINES:
        body = {"model": model, "prompt": "The capital of France is", "max_tokens": 1, "temperature": 0}
        began = time.monotonic()
        answer = httpx.post(f"{gateway.url}/v1/completions", json=body, timeout=30)
        assert answer.json()["choices"][0]["text"] == " Paris"
        assert time.monotonic() - began < 10


def test_two_hundred_cases_of_nonsense(gateway: Gateway) -> None:
    survives(gateway, 200)


@pytest.mark.proof
def test_ten_thousand_cases_of_nonsense(gateway: Gateway) -> None:
    survives(gateway, 10_000)
