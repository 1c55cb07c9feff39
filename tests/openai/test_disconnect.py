"""Nobody computes for a client that has left, however it left and whatever it had asked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.engine import Delta
from gateway.testing.client import Leave

CASES = [({"stream": True}), ({"stream": False}), ({"stream": True, "n": 3}), ({"stream": False, "n": 3})]


@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(map(str, fields.values())))
@pytest.mark.parametrize("how", ["disconnect", "cancel"])
async def test_leaving_closes_every_generation(dictate: Any, how: Leave, fields: dict[str, Any]) -> None:
    engine, client = dictate(Delta(list(b"a")), 60.0, Delta(list(b"b"), finish_reason="length"))
    n = fields.get("n", 1)
    async with client.open("POST", "/v1/completions", {"prompt": "x", **fields}) as exchange:
        while engine.running < n:
            await asyncio.sleep(0.001)
        if fields["stream"]:
            await exchange.next_body()
        started = time.monotonic()
        await exchange.leave(how)
        await asyncio.wait([exchange.task], timeout=1)
        assert time.monotonic() - started < 0.5
        assert (engine.running, engine.closed) == (0, n)
        # Told by `http.disconnect`, the app ends in peace; a cancellation belongs to whoever cancelled.
        assert exchange.task.cancelled() == (how == "cancel")


@pytest.mark.parametrize("n", [1, 3])
async def test_a_broken_pipe_closes_every_generation(dictate: Any, n: int) -> None:
    engine, client = dictate(Delta(list(b"a")), 0.02, Delta(list(b"b")), 60.0)
    async with client.open("POST", "/v1/completions", {"prompt": "x", "stream": True, "n": n}) as exchange:
        await exchange.next_body()
        await exchange.leave("broken_pipe")
        await asyncio.wait([exchange.task], timeout=1)
        assert isinstance(exchange.task.exception(), OSError)
        assert (engine.running, engine.closed) == (0, n)


async def test_a_client_that_leaves_before_its_body_is_read_is_no_error(dictate: Any) -> None:
    engine, client = dictate(Delta(list(b"a"), finish_reason="length"))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await client.app({"type": "http", "method": "POST", "path": "/v1/completions"}, receive, send)
    assert sent == []
    assert engine.asked == []


async def test_nothing_listens_once_the_answer_is_there(dictate: Any) -> None:
    _, client = dictate(Delta(list(b"a")), 0.01, Delta(list(b"b"), finish_reason="length"))
    before = asyncio.all_tasks()
    for stream in (True, False):
        assert (await client.post("/v1/completions", {"prompt": "x", "stream": stream})).status == 200
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
