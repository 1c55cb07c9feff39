"""Calls over a Unix socket: answers, errors, callers that leave, replicas that end or die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.errors import TooManyRequests
from gateway.serve.local import STREAM, WHOLE, Failed, LocalCalls, LocalServer, Lost, NotReached


class Model:
    """Answers with what it was asked, in as many parts as it has bytes."""

    def __init__(self) -> None:
        self.running = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def answer(self, call: bytes) -> bytes:
        await self.go_on.wait()
        if call == b"refuse":
            raise TooManyRequests("later", param="n", retry_after_s=3)
        if call == b"break":
            raise KeyError("secret")
        if call == b"cancel":
            raise asyncio.CancelledError
        return call[::-1]

    async def stream(self, call: bytes) -> AsyncGenerator[bytes]:
        self.running += 1
        try:
            for part in call:
                yield bytes([part])
                await self.go_on.wait()
            if call == b"refuse":
                raise TooManyRequests("later")
        finally:
            self.running -= 1


@pytest.fixture
def model() -> Model:
    return Model()


@pytest_asyncio.fixture
async def server(model: Model, tmp_path: Path) -> AsyncIterator[LocalServer]:
    server = LocalServer(model.answer, model.stream)
    await server.start(tmp_path)
    yield server
    model.go_on.set()
    await server.close()


@pytest.fixture
def path(server: LocalServer) -> str:
    return str(server.path)


async def told(calls: LocalCalls, path: str, kind: bytes, call: bytes) -> list[bytes]:
    return [part async for part in calls.call(path, kind, call)]


async def test_answers_come_whole_and_in_parts_over_one_connection(path: str) -> None:
    calls = LocalCalls()
    for call in (b"abc", bytes(range(256)) * 40_000):
        assert await told(calls, path, WHOLE, call) == [call[::-1]]
    assert await told(calls, path, STREAM, b"abc") == [b"a", b"b", b"c"]
    assert await told(calls, path, STREAM, b"") == []
    assert [len(kept) for kept in calls.kept.values()] == [1]
    assert not calls.under_way


async def test_calls_run_beside_each_other(path: str, model: Model) -> None:
    calls = LocalCalls()
    model.go_on.clear()
    asked = [asyncio.ensure_future(told(calls, path, STREAM, b"xyz")) for _ in range(20)]
    async with asyncio.timeout(5):
        while model.running < 20:
            await asyncio.sleep(0.01)
    assert calls.under_way[path] == 20
    model.go_on.set()
    assert await asyncio.gather(*asked) == [[b"x", b"y", b"z"]] * 20


async def test_an_error_of_ours_arrives_as_it_was_raised(path: str) -> None:
    calls = LocalCalls()
    with pytest.raises(TooManyRequests, match="later") as refused:
        await told(calls, path, WHOLE, b"refuse")
    assert (refused.value.param, refused.value.retry_after_s) == ("n", 3)
    parts = calls.call(path, STREAM, b"refuse")
    assert await anext(parts) == b"r"
    with pytest.raises(TooManyRequests):
        async for _ in parts:
            pass


async def test_another_error_tells_its_name_alone(path: str) -> None:
    with pytest.raises(Failed, match=r"^KeyError$"):
        await told(LocalCalls(), path, WHOLE, b"break")


async def test_what_is_cancelled_in_the_replica_is_lost(path: str) -> None:
    with pytest.raises(Lost):
        await told(LocalCalls(), path, WHOLE, b"cancel")


async def test_who_leaves_ends_the_call(path: str, model: Model) -> None:
    calls = LocalCalls()
    model.go_on.clear()
    parts = calls.call(path, STREAM, b"abc")
    assert await anext(parts) == b"a"
    assert model.running == 1
    await parts.aclose()
    async with asyncio.timeout(5):
        while model.running:
            await asyncio.sleep(0.01)
    assert not calls.under_way
    waiting = asyncio.ensure_future(told(calls, path, STREAM, b"abc"))
    async with asyncio.timeout(5):
        while not model.running:
            await asyncio.sleep(0.01)
        waiting.cancel()
        while model.running:
            await asyncio.sleep(0.01)


async def test_a_slow_reader_is_waited_for(path: str, model: Model) -> None:
    calls = LocalCalls()
    made = 0

    async def stream(_: bytes) -> AsyncGenerator[bytes]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield bytes(100_000)

    server = LocalServer(model.answer, stream)
    await server.start(Path(path).parent)
    parts = calls.call(str(server.path), STREAM, b"")
    await anext(parts)
    await asyncio.sleep(0.3)
    assert made < 30
    assert len([part async for part in parts]) == 999
    await server.close()


async def test_a_server_that_closes_answers_what_is_under_way_and_takes_no_more(
    server: LocalServer, path: str, model: Model
) -> None:
    calls, idle = LocalCalls(), LocalCalls()
    await told(idle, path, WHOLE, b"x")
    model.go_on.clear()
    under_way = asyncio.ensure_future(told(calls, path, STREAM, b"ab"))
    async with asyncio.timeout(5):
        while not model.running:
            await asyncio.sleep(0.01)
        closing = asyncio.ensure_future(server.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        assert not Path(path).exists()
        for caller in (idle, LocalCalls()):
            with pytest.raises(NotReached):
                await told(caller, path, WHOLE, b"x")
        model.go_on.set()
        assert await under_way == [b"a", b"b"]
        await closing
    await asyncio.sleep(0.05)
    assert not calls.kept


async def test_who_died_is_not_reached(tmp_path: Path) -> None:
    stale = tmp_path / "stale.sock"
    with pytest.raises(NotReached):
        await told(LocalCalls(), str(stale), WHOLE, b"x")
    ended = await asyncio.start_unix_server(lambda _, writer: writer.close(), str(stale))
    with pytest.raises(Lost):
        await told(LocalCalls(), str(stale), WHOLE, b"x")
    ended.close()
    with pytest.raises(NotReached):
        await told(LocalCalls(), str(stale), WHOLE, b"x")
