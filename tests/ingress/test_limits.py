"""What the doors turn away, and that they say so."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.config import LimitSpec
from gateway.ingress.doors import DoorPolicy


async def test_large_bodies_are_413(doors: Any) -> None:
    gateway = doors(policy=DoorPolicy(limits=LimitSpec(max_body_mb=0.001)))
    answer = await gateway.wide.post("/v1/completions", {"prompt": "x" * 2000})
    assert (answer.status, answer.json()["error"]["code"]) == (413, "body_too_large")


async def test_one_request_too_many_is_429_with_retry_after(doors: Any) -> None:
    slow = {"models": {"echo": {"backend": "echo", "options": {"delay_ms": 20}, "max_concurrent": 1}}}
    gateway = doors(slow, policy=DoorPolicy(limits=LimitSpec(max_concurrent=1)))
    for client, path in ((gateway.wide, "/v1/completions"), (gateway.lanes["echo"], "/m/echo/v1/completions")):
        async with client.open("POST", path, {"prompt": "x" * 50}) as first:
            await asyncio.sleep(0.05)
            second = await client.post(path, {"prompt": "x"})
            assert (second.status, second.headers["retry-after"]) == (429, "1")
            assert (await first.answer()).status == 200
        assert (await client.post(path, {"prompt": "x"})).status == 200


async def test_a_body_that_never_comes_is_408(doors: Any) -> None:
    gateway = doors(policy=DoorPolicy(limits=LimitSpec(body_timeout_s=0.05)))
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [(b"host", b"localhost")]}
    await gateway.door(scope, never, send)
    assert sent[0]["status"] == 408
