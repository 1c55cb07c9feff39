"""A call that came by handle, answered by an ASGI app: whole, streamed, joined under backlog, cancelled when left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import plugins
from gateway.backend import BackendContext
from gateway.config import ModelSpec
from gateway.errors import TooManyRequests, Unavailable
from gateway.serve import answering
from gateway.serve.answering import streamed_answer, whole_answer
from gateway.serve.wire import Call, Head, pack_call, pack_head, unpack_call, unpack_head
from gateway.types import ASGIApp, Receive, Scope, Send

CALL = Call("POST", "/v1/completions", b"a=1", [(b"content-type", b"application/json")], b'{"prompt": "hi"}')

Body = Callable[[Send], Awaitable[None]]


def app(body: Body, status: int = 200) -> ASGIApp:
    """Reads the request, begins with `status`, then does what `body` says."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == CALL.body
        assert (scope["method"], scope["path"], scope["query_string"]) == ("POST", "/v1/completions", b"a=1")
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-a", b"b")]})
        await body(send)

    return run


async def say(send: Send, *parts: bytes) -> None:
    for index, part in enumerate(parts):
        await send({"type": "http.response.body", "body": part, "more_body": index < len(parts) - 1})


async def stream(asgi: ASGIApp) -> tuple[Head, list[bytes]]:
    messages = [message async for message in streamed_answer(asgi, CALL)]
    head, first = unpack_head(messages[0])
    return head, [first, *messages[1:]]


@given(st.binary(), st.lists(st.tuples(st.binary(), st.binary())), st.integers(100, 599))
def test_the_wire_gives_back_what_it_took(body: bytes, headers: list[tuple[bytes, bytes]], status: int) -> None:
    call = Call("GET", "/é", b"", headers, body)
    assert unpack_call(pack_call(call)) == call
    assert unpack_head(pack_head(Head(status, headers, 0.5), body)) == (Head(status, headers, 0.5), body)


@pytest.mark.parametrize("parts", [(b"one",), (b"one", b"two", b""), (b"",)])
async def test_a_whole_answer_is_one_message(parts: tuple[bytes, ...]) -> None:
    head, body = unpack_head(await whole_answer(app(lambda send: say(send, *parts), 201), CALL))
    assert (head.status, head.headers, body) == (201, [(b"x-a", b"b")], b"".join(parts))
    assert 0 <= head.backend_s < 5


async def test_a_real_backend_answers_both_ways() -> None:
    context = BackendContext("e", ModelSpec(backend="echo"), None)
    echo = plugins.load().backend("echo").factory(context).app
    head, body = unpack_head(await whole_answer(echo, CALL))
    assert head.status == 200
    assert b'"hi"' in body
    assert unpack_head(await whole_answer(echo, Call("GET", "/nowhere", b"", [], b"")))[0].status == 404
    streaming = Call("POST", CALL.path, b"", [], b'{"prompt": "hi", "stream": true}')
    assert b"".join([message async for message in streamed_answer(echo, streaming)]).endswith(b"data: [DONE]\n\n")


async def test_the_first_part_leaves_at_once_and_later_ones_are_joined_only_behind_a_slow_reader() -> None:
    go = asyncio.Event()

    async def body(send: Send) -> None:
        await say(send, b"1")
        await go.wait()
        for part in (b"2", b"3", b"4"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    answer = streamed_answer(app(body), CALL)
    assert unpack_head(await asyncio.wait_for(anext(answer), 1))[1] == b"1"
    go.set()
    await asyncio.sleep(0.05)
    assert [message async for message in answer] == [b"234"]


async def test_a_reader_that_keeps_up_gets_every_part_by_itself() -> None:
    async def body(send: Send) -> None:
        for part in (b"1", b"2", b"3"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0.02)

    assert (await stream(app(body)))[1] == [b"1", b"2", b"3"]


async def test_what_waits_for_a_slow_reader_is_bounded() -> None:
    sent = 0

    async def body(send: Send) -> None:
        nonlocal sent
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(1 << 18), "more_body": True})
            sent += 1

    answer = streamed_answer(app(body), CALL)
    total = len(unpack_head(await anext(answer))[1])
    await asyncio.sleep(0.05)
    assert sent < 16, "the app waits for its reader"
    most = 0
    async for message in answer:
        most = max(most, len(message))
        total += len(message)
    assert total == 64 << 18
    assert most <= answering._MOST_QUEUED + (1 << 18)  # pyright: ignore[reportPrivateUsage]


async def test_an_answer_without_a_body_is_its_head() -> None:
    head, parts = await stream(app(lambda send: say(send, b""), 204))
    assert (head.status, parts) == (204, [b""])


async def test_closing_the_stream_cancels_the_app_and_waits_for_its_end() -> None:
    ended: list[str] = []

    async def body(send: Send) -> None:
        await say(send, b"1")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            ended.append("app")

    answer = cast(AsyncGenerator[bytes], streamed_answer(app(body), CALL))
    await anext(answer)
    await answer.aclose()
    assert ended == ["app"]


async def test_cancelling_a_whole_answer_cancels_the_app() -> None:
    ended: list[str] = []
    began = asyncio.Event()

    async def body(send: Send) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("app")

    task = asyncio.create_task(whole_answer(app(body), CALL))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["app"]


async def raise_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    raise TooManyRequests("full", retry_after_s=2)


async def test_errors_of_ours_are_answers() -> None:
    for head, body in (unpack_head(await whole_answer(raise_at_once, CALL)), await stream(raise_at_once)):
        assert head.status == 429
        assert (b"retry-after", b"2") in head.headers
        assert b"rate_limit_exceeded" in (body if isinstance(body, bytes) else b"".join(body))


async def test_a_stream_that_has_begun_ends_in_its_error() -> None:
    async def body(send: Send) -> None:
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await asyncio.sleep(0.02)
        raise Unavailable("gone")

    seen: list[bytes] = []
    with pytest.raises(Unavailable, match="gone"):
        async for message in streamed_answer(app(body), CALL):
            seen.append(message)
    assert unpack_head(seen[0])[1] == b"1"


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Ends without a word."""


async def headless(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.body", "body": b"1"})


@pytest.mark.parametrize("asgi", [nothing, headless])
async def test_an_app_that_breaks_the_protocol_is_an_error(asgi: Any) -> None:
    with pytest.raises(RuntimeError, match=r"without an answer"):
        await whole_answer(asgi, CALL)
    with pytest.raises(RuntimeError, match=r"without an answer|before its head"):
        await stream(asgi)
