"""Batches of a stream: the first at once, the rest joined, the source always closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from gateway_playground.pace import Paced


class Source:
    """Counts up, a number each `every` seconds; knows whether it was closed."""

    def __init__(self, count: int, every: float, error: Exception | None = None) -> None:
        self.count, self.every, self.error, self.closed = count, every, error, False

    async def items(self) -> AsyncGenerator[int]:
        try:
            for number in range(self.count):
                yield number
                await asyncio.sleep(self.every)
            if self.error:
                raise self.error
        finally:
            self.closed = True


async def test_the_first_item_leaves_at_once_and_the_rest_is_joined():
    source, started = Source(50, 0.005), time.perf_counter()
    batches: list[list[int]] = []
    async for batch in Paced(source.items(), 0.1).batches():
        if not batches:
            assert time.perf_counter() - started < 0.05
        batches.append(batch)
    assert [number for batch in batches for number in batch] == list(range(50))
    assert batches[0] == [0]
    assert len(batches) <= 8


async def test_the_end_is_not_waited_for():
    started = time.perf_counter()
    batches = [batch async for batch in Paced(Source(2, 0).items(), 5).batches()]
    assert [number for batch in batches for number in batch] == [0, 1]
    assert time.perf_counter() - started < 1


async def test_an_error_comes_after_what_came_before_it():
    seen: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        async for batch in Paced(Source(3, 0.01, ValueError("broken")).items(), 0.01).batches():
            seen += batch
    assert seen == [0, 1, 2]


async def test_stop_closes_the_source_and_ends_the_batches():
    source = Source(1000, 0.01)
    paced = Paced(source.items(), 0.02)
    seen = 0
    async for _ in paced.batches():
        seen += 1
        if seen == 2:
            paced.stop()
    assert source.closed and paced.stopped and seen <= 3


async def test_stop_before_the_source_began_ends_as_well():
    paced = Paced(Source(3, 0.01).items(), 0.01)
    paced.stop()
    assert [batch async for batch in paced.batches()] == []


async def test_a_reader_that_leaves_closes_the_source():
    source = Source(1000, 0.01)
    batches = Paced(source.items(), 0.01).batches()
    await anext(batches)
    await batches.aclose()
    assert source.closed
