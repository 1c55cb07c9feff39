"""Proofs at full size, for `make proof`: what the other tests show once, shown many times."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import yaml

from tests.endtoend.test_three_engines import ENGINES, in_flight
from tests.running import Gateway, free_port, serving

pytestmark = [pytest.mark.slow]


async def leave(gateway: Gateway, model: str, times: int) -> None:
    """`times` clients leave at random moments of a long answer, sixteen at a time, through both doors."""
    rng = random.Random(1)

    async def one(http: httpx.AsyncClient) -> None:
        base = rng.choice([f"{gateway.url}/v1", f"{gateway.url}/m/{model}/v1"])
        body = {"model": model, "prompt": "Tell me a story", "stream": rng.random() < 0.7, "max_tokens": 1500}
        try:
            async with asyncio.timeout(rng.uniform(0.01, 1.5)):
                await http.post(f"{base}/completions", json={**body, "ignore_eos": True})
        except TimeoutError:
            return

    async with httpx.AsyncClient(timeout=60) as http:
        for _ in range(times // 16 or 1):
            await asyncio.gather(*(one(http) for _ in range(min(16, times))))


def check_none_left(gateway: Gateway, model: str) -> None:
    # None stays: how soon each goes is what the backends' contract asks, on an engine that has nothing else to do.
    deadline = time.monotonic() + 10
    while in_flight(gateway, model) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert in_flight(gateway, model) == 0
    answer = httpx.post(
        f"{gateway.url}/v1/completions",
        json={"model": model, "prompt": "The capital of France is", "max_tokens": 4, "temperature": 0},
        timeout=30,
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("model", ENGINES)
async def test_clients_that_leave_at_random_moments(gateway: Gateway, model: str) -> None:
    await leave(gateway, model, 16)
    check_none_left(gateway, model)


async def test_clients_that_leave_while_they_are_assigned_to_a_replica(gateway: Gateway) -> None:
    """Within the milliseconds in which Serve knows of a call, and does not know yet whom to tell that it is over."""
    asked = {"model": "echo-slow", "prompt": "a " * 800, "max_tokens": 900, "stream": True}
    rng = random.Random(1)

    async def one(http: httpx.AsyncClient) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(rng.uniform(0.005, 0.1)):
                await http.post(f"{gateway.url}/v1/completions", json=asked)

    async with httpx.AsyncClient(timeout=60) as http:
        for _ in range(12):
            await asyncio.gather(*(one(http) for _ in range(16)))
    check_none_left(gateway, "echo-slow")


@pytest.mark.proof
@pytest.mark.parametrize("model", ENGINES)
async def test_four_hundred_clients_that_leave_at_random_moments(gateway: Gateway, model: str) -> None:
    await leave(gateway, model, 400)
    check_none_left(gateway, model)


@pytest.mark.proof
def test_ten_starts_and_stops_leave_nothing(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"models": {"echo": {"backend": "echo"}}}))
    for _ in range(10):
        with serving(config, free_port()) as gateway:
            assert httpx.get(f"{gateway.url}/health").json()["status"] == "ok"
            assert gateway.stop() < 15
