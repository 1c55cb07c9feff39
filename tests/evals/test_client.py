"""What lies between a sample and a server: places for requests, streams put together, answers from the cache."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway_evals.cache import cache_key
from gateway_evals.client import GatewayClient
from gateway_evals.errors import EvaluationError, SampleFailed
from gateway_evals.pacing import Pace
from gateway_evals.streamed import BrokenStreamError, StreamedAnswer, can_stream


async def test_places_are_taken_away_while_the_server_is_busy_and_given_back() -> None:
    pace = Pace(16, slow_s=5)
    numbers = [await pace.enter() for _ in range(16)]
    waiting = asyncio.create_task(pace.enter())
    await asyncio.sleep(0)
    assert not waiting.done()
    for number in numbers:
        pace.leave(number, busy=True)
    assert pace.limit == 11, "sixteen that were sent together are one sign, not sixteen"
    pace.leave(await waiting, busy=False, latency_s=6)
    assert pace.limit == 7, "an answer that took more than it should is one too"
    for _ in range(200):
        pace.leave(await pace.enter(), busy=False, latency_s=0.1)
    assert (pace.limit, pace.lowest) == (16, 7)
    for _ in range(40):
        pace.leave(await pace.enter(), busy=True)
    assert pace.limit == 1, "one place is always left"


async def test_a_place_that_is_given_up_while_waiting_is_not_lost() -> None:
    pace = Pace(1, slow_s=5)
    number = await pace.enter()
    given_up, next_one = asyncio.create_task(pace.enter()), asyncio.create_task(pace.enter())
    await asyncio.sleep(0)
    pace.leave(number, busy=False)
    given_up.cancel()
    async with asyncio.timeout(1):
        await next_one


async def test_a_busy_server_gets_fewer_requests_at_once(serve: Any) -> None:
    running = most = 0

    async def chat(_: Request) -> Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(0.01)
            if running > 4:
                return JSONResponse({"error": {"message": "too many"}}, 429)
            return JSONResponse({"choices": [{"index": 0}]})
        finally:
            running -= 1

    url = serve(Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])]))
    async with GatewayClient(url, concurrency=32, max_attempts=20, first_wait_s=0.01) as client:
        answers = await asyncio.gather(*(client.post(f"{url}/v1/chat/completions", {}) for _ in range(200)))
        assert len(answers) == 200
        assert client.pace.lowest <= 8


def test_streams_are_put_together() -> None:
    answer = StreamedAnswer()
    text = (
        'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
        'data: {"choices":[{"index":0,"delta":{"content":"Gr"}}]}\n\n: a comment\n\n'
        'data: {"choices":[{"index":0,"delta":{"content":"üße"},"finish_reason":"stop"}]}\n\n'
        'data: {"choices":[],"usage":{"completion_tokens":2}}\n\ndata: [DONE]\n\n'
    ).encode()
    begun: list[bool] = []
    for place in range(len(text)):
        answer.feed(text[place : place + 1])
        begun.append(answer.begun)
    assert begun.index(True) > text.index(b"Gr"), "a role is no token"
    assert answer.body() == {
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Grüße"}}],
        "usage": {"completion_tokens": 2},
    }
    with pytest.raises(BrokenStreamError, match="overloaded"):
        StreamedAnswer().feed(b'data: {"error": {"message": "overloaded"}}\n\n')
    with pytest.raises(BrokenStreamError, match="unexpected shape"):
        StreamedAnswer().feed(b"data: {\n\n")
    with pytest.raises(BrokenStreamError, match="ended before its end"):
        StreamedAnswer().body()
    assert can_stream({"prompt": "a", "max_tokens": 1})
    assert not can_stream({"prompt": [[1]], "max_tokens": 1, "logprobs": 1, "echo": True})
    assert not can_stream({"prompt": "a"})


async def test_a_stream_that_breaks_is_asked_again(serve: Any) -> None:
    count = 0

    async def complete(_: Request) -> Response:
        nonlocal count
        count += 1
        parts = [b'data: {"choices":[{"index":0,"text":"a"}]}\n\n', *([b"data: [DONE]\n\n"] if count > 1 else [])]
        return StreamingResponse(iter(parts), media_type="text/event-stream")

    url = serve(Starlette(routes=[Route("/v1/completions", complete, methods=["POST"])]))
    async with GatewayClient(url, stream=True, first_wait_s=0.01) as client:
        answer = await client.post(f"{url}/v1/completions", {"prompt": "a", "max_tokens": 1})
        assert (answer.attempts, answer.body["choices"][0]["text"]) == (2, "a")
        assert answer.ttft_s is not None


FACTS = {"digest": "d", "backend": "torch", "dtype": "float32", "template_digest": "t"}
ASKED = {"model": "m", "prompt": "a", "seed": 1, "temperature": 0}


def test_the_key_is_of_weights_and_of_everything_that_was_asked() -> None:
    key = cache_key(FACTS, "completions", ASKED)
    assert key == cache_key(FACTS, "completions", {**ASKED, "model": "another name", "stream": True})
    others = [cache_key({**FACTS, name: "other"}, "completions", ASKED) for name in FACTS]
    others += [
        cache_key({**FACTS, "adapter": "x"}, "completions", ASKED),
        cache_key({**FACTS, "base": {"digest": "e"}}, "completions", ASKED),
        cache_key(FACTS, "chat/completions", ASKED),
        cache_key(FACTS, "completions", {**ASKED, "prompt": "b"}),
        cache_key(FACTS, "completions", {**ASKED, "seed": 2}),
    ]
    assert len({key, *others}) == 1 + len(others)
    assert cache_key({**FACTS, "digest": ""}, "completions", ASKED) is None
    assert cache_key(None, "completions", ASKED) is None
    assert cache_key(FACTS, "completions", {"temperature": 1}) is None


async def test_answers_from_the_cache(serve: Any, tmp_path: Path) -> None:
    digest, counts = "one", {"m": 0, "tuned": 0, "route": 0}

    async def complete(request: Request) -> Response:
        name = (await request.json())["model"]
        counts[name] += 1
        return JSONResponse({"choices": [{"index": 0, "text": f"{name} {counts[name]}"}]})

    def models(_: Request) -> Response:
        rows: list[dict[str, Any]] = [
            {"id": "m", "parent": None, "gateway": {**FACTS, "digest": digest}},
            {"id": "tuned", "parent": "m", "gateway": {"digest": "adapter", "adapter": "tuned@1"}},
            {"id": "route", "gateway": {"targets": ["m"], "digest": ""}},
        ]
        return JSONResponse({"data": rows})

    url = serve(Starlette(routes=[Route("/v1/models", models), Route("/v1/completions", complete, methods=["POST"])]))

    async def ask(name: str) -> tuple[str, bool]:
        async with GatewayClient(url, cache=tmp_path / "deep" / "answers.sqlite") as client:
            await client.models()
            answer = await client.post(f"{url}/v1/completions", {**ASKED, "model": name})
            return answer.body["choices"][0]["text"], answer.cached

    assert [await ask("m"), await ask("m")] == [("m 1", False), ("m 1", True)]
    assert [await ask("tuned"), await ask("tuned")] == [("tuned 1", False), ("tuned 1", True)]
    assert [await ask("route"), await ask("route")] == [("route 1", False), ("route 2", False)]
    digest = "two"
    # New weights under the old name, and an adapter over them: neither is answered for by what was.
    assert [await ask("m"), await ask("tuned")] == [("m 2", False), ("tuned 2", False)]
    assert (tmp_path / "deep" / "answers.sqlite").stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("no database, and long enough to be seen as none" * 40)
    with pytest.raises(EvaluationError, match="name another, or --no-cache"):
        GatewayClient(url, cache=tmp_path / "file")
    async with GatewayClient("http://127.0.0.1:9", max_attempts=1) as client:
        with pytest.raises(SampleFailed):
            await client.post("http://127.0.0.1:9/v1/completions", ASKED)
