"""The page's client against echo models behind the real doors, and what it says where they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx
import pytest

from gateway.tabs import AskError
from gateway_playground.client import GatewayClient
from gateway_playground.failures import of_status, told
from gateway_playground.question import Question, ask
from tests.playground.house import House


@pytest.fixture
async def client(house: House) -> AsyncGenerator[GatewayClient]:
    client = GatewayClient(house.base_url, read_timeout_s=10)
    yield client
    await client.aclose()


def question(model: str, text: str, path: str | None = None, key: str = "") -> Question:
    return Question(model, path or f"/m/{model}/v1", [{"role": "user", "content": text}], {"max_tokens": 200}, key)


async def test_an_answer_comes_with_its_count_and_its_target(client: GatewayClient):
    pieces = [piece async for piece in ask(client, question("slow", "hello"))]
    assert "".join(piece.text for piece in pieces) == "hello"
    assert pieces[0].target == "slow"
    counts = [piece.completion_tokens for piece in pieces if piece.completion_tokens is not None]
    assert len(counts) == 1 and counts[0] >= 5
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["stop"]


async def test_closing_ends_the_generation(client: GatewayClient, house: House):
    async with aclosing(ask(client, question("slow", "long " * 30))) as pieces:
        async for piece in pieces:
            if piece.text:
                break
        assert house.running() == 1
    for _ in range(100):
        if house.running() == 0:
            break
        await asyncio.sleep(0.01)
    assert house.running() == 0


async def test_models_name_their_fast_lanes(client: GatewayClient):
    paths = {model["id"]: model["path"] for model in await client.models("")}
    assert paths["quick"] == "/m/quick/v1"
    assert paths["any"] == "/v1"


async def test_a_missing_model_and_an_odd_key_are_told(client: GatewayClient):
    with pytest.raises(AskError, match="nobody"):
        _ = [piece async for piece in ask(client, question("nobody", "x", "/v1"))]
    with pytest.raises(AskError, match="not a key"):
        await client.models("clé\n")


async def test_a_gateway_that_is_gone_is_told():
    client = GatewayClient("http://127.0.0.1:9", read_timeout_s=1)
    with pytest.raises(AskError, match=r"does not answer at http://127\.0\.0\.1:9"):
        await client.models("")
    await client.aclose()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"", "needs a key"),
        (403, b'{"error":{"message":"not yours"}}', "Not allowed: not yours"),
        (429, b"", "Try again in 7 s"),
        (500, b"Internal Server Error", "status 500"),
        (503, b'{"error":{"message":"no replica"}}', "m is not up at the moment (no replica)"),
        (400, b'{"error":{"message":"too long"}}', "refused this: too long"),
    ],
)
def test_each_status_has_its_words(status: int, body: bytes, words: str):
    assert words in of_status(status, body, httpx.Headers({"retry-after": "7"}), model="m").message


def test_a_key_is_in_no_repr_and_bodies_of_others_are_no_messages():
    assert "secret" not in repr(question("m", "x", key="secret"))
    assert told(b"<html>") == told(b"[]") == told(b'{"error": 5}') == ""
