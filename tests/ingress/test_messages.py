"""Anthropic's own client at both doors, in this process: answers, events, errors in its shapes, one record each."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import httpx2
import pytest

from gateway.ingress.auth import hash_key
from gateway.ingress.doors import DoorPolicy
from tests.ingress.conftest import Doors

HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]


def claude(doors: Doors, key: str = "none") -> anthropic.AsyncAnthropic:
    # AppClient is for requests of ours; the official client wants a transport. Its address must be a loopback name.
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=doors.door))  # type: ignore[arg-type]
    return anthropic.AsyncAnthropic(base_url="http://127.0.0.1", api_key=key, http_client=http, max_retries=0)


async def test_a_message(doors: Any) -> None:
    gateway = doors()
    answer = await claude(gateway).messages.create(model="echo", messages=HELLO, max_tokens=50)
    assert answer.id.startswith("msg_")
    assert answer.model == "echo"
    assert [block.text for block in answer.content if block.type == "text"] == ["Hello there"]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.output_tokens == len("Hello there") + 1
    assert answer.usage.input_tokens > len("Hello there")
    await asyncio.sleep(0)
    (record,) = gateway.records
    assert (record.path, record.status, record.usage.completion_tokens) == ("/v1/messages", 200, 12)


async def test_a_stream_is_the_same_message(doors: Any) -> None:
    gateway = doors()
    whole = await claude(gateway).messages.create(model="echo", messages=HELLO, max_tokens=5)
    assert whole.stop_reason == "max_tokens"
    async with claude(gateway).messages.stream(model="echo", messages=HELLO, max_tokens=5) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_message()
    assert final.content[0].text == whole.content[0].text  # type: ignore[union-attr]
    assert final.usage.input_tokens == whole.usage.input_tokens
    assert final.usage.output_tokens == 5
    assert final.stop_reason == "max_tokens"
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    await asyncio.sleep(0)
    assert gateway.records[-1].stream
    assert gateway.records[-1].usage.completion_tokens == 5


async def test_system_blocks_and_earlier_turns_reach_the_model(doors: Any) -> None:
    gateway = doors()
    seen: list[dict[str, Any]] = []
    inner = gateway.fleet.backends["echo"].app

    async def observed(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        seen.append(json.loads(message["body"]))
        messages = iter([message])

        async def again() -> Any:
            return next(messages, None) or await receive()

        await inner(scope, again, send)

    gateway.fleet.observed = observed
    await claude(gateway).messages.create(
        model="echo", max_tokens=5, system=[{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}],
        stop_sequences=["!"], metadata={"user_id": "u"}, extra_body={"min_p": 0.1, "temperature": 0.5, "top_k": 3},
        messages=[
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "Rain"}]},
                {"type": "tool_result", "tool_use_id": "t2", "content": "no such place", "is_error": True},
                {"type": "text", "text": "So?"},
            ]},
        ],
    )  # fmt: skip
    (asked,) = seen
    assert asked["messages"] == [
        {"role": "system", "content": "Be\nbrief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}]},
        {"role": "tool", "tool_call_id": "t1", "content": "Rain"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no such place"},
        {"role": "user", "content": "So?"},
    ]  # fmt: skip
    assert (asked["stop"], asked["temperature"], asked["top_k"], asked["min_p"]) == (["!"], 0.5, 3, 0.1)
    assert "metadata" not in asked


async def test_tokens_are_counted_as_they_are_used(doors: Any) -> None:
    gateway = doors()
    count = await claude(gateway).messages.count_tokens(model="echo", messages=HELLO, system="Be brief.")
    answer = await claude(gateway).messages.create(model="echo", messages=HELLO, system="Be brief.", max_tokens=1)
    assert count.input_tokens == answer.usage.input_tokens
    await asyncio.sleep(0)
    assert [record.path for record in gateway.records] == ["/v1/messages/count_tokens", "/v1/messages"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": 5}]}, "content"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "image"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_use_id"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool"}}, "name"),
        ({"temperature": "hot"}, "temperature"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"n": 2}, "`n`"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config.format"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"output_format": {"type": "json_schema", "schema": {}}}, "output_format"),
    ],
)
async def test_what_is_wrong_is_named(doors: Any, fields: dict[str, Any], says: str) -> None:
    body = {"model": "echo", "messages": HELLO, "max_tokens": 5, **fields}
    answer = await doors().wide.post("/v1/messages", {name: value for name, value in body.items() if value is not None})
    assert answer.status == 400, answer.body
    error = answer.json()
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert says in error["error"]["message"]


async def test_every_layers_errors_have_its_shape(doors: Any) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        await claude(doors()).messages.create(model="nobody", messages=HELLO, max_tokens=5)
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    locked = doors(policy=DoorPolicy(key_hashes=(hash_key("right"),)))
    with pytest.raises(anthropic.AuthenticationError) as refused:
        await claude(locked, "wrong").messages.create(model="echo", messages=HELLO, max_tokens=5)
    assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    assert (await claude(locked, "right").messages.create(model="echo", messages=HELLO, max_tokens=5)).content
    down = doors(down=["echo"])
    answer = await down.wide.post("/v1/messages", {"model": "echo", "messages": HELLO, "max_tokens": 5})
    assert answer.status == 503
    assert answer.json()["error"]["type"] == "overloaded_error"
    assert answer.headers["request-id"] == answer.json()["request_id"]
    overflow = await doors().wide.post("/v1/messages", {"model": "echo", "messages": HELLO, "max_tokens": 10**9})
    assert overflow.status == 400
    assert overflow.json()["error"]["type"] == "invalid_request_error"
    assert (await doors().wide.get("/v1/messages")).status == 405


async def test_a_stream_that_breaks_says_so(doors: Any) -> None:
    gateway = doors({"models": {"echo": {"backend": "echo", "options": {"fail_after": 2}}}})
    body = {"model": "echo", "messages": HELLO, "max_tokens": 50, "stream": True}
    text = (await gateway.wide.post("/v1/messages", body)).body.decode()
    assert "event: message_start" in text
    assert text.rstrip().rpartition("event: error")[2].count('"type":"overloaded_error"') == 1
    assert "message_stop" not in text


async def test_a_client_that_leaves_stops_the_generation(doors: Any) -> None:
    gateway = doors({"models": {"echo": {"backend": "echo", "options": {"delay_ms": 20}}}})
    body = {"model": "echo", "messages": [{"role": "user", "content": "word " * 200}], "max_tokens": 900}
    backend = gateway.fleet.backends["echo"]
    for stream in (False, True):
        task = asyncio.create_task(gateway.wide.post("/v1/messages", {**body, "stream": stream}))
        while backend.running() == 0:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])
        assert backend.running() == 0
        await asyncio.sleep(0)
        assert gateway.records[-1].outcome == "disconnected"


async def test_the_fast_lane_speaks_it_too(doors: Any) -> None:
    answer = await doors().lanes["echo"].post("/m/echo/v1/messages", {"messages": HELLO, "max_tokens": 50})
    assert answer.status == 200
    assert answer.json()["content"] == [{"type": "text", "text": "Hello there"}]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions", "/tokenize"])
async def test_bytes_that_are_no_text_are_refused(doors: Any, path: str) -> None:
    for body in (
        b'{"model":"echo","max_tokens":5,"messages":[{"role":"user","content":"H\xff\xfe"}]}',
        b'{"model":"ec\xffho","max_tokens":5,"messages":[{"role":"user","content":"H"}]}',
        b'{"model":"echo","max_tokens":5,"mess\xffages":[{"role":"user","content":"H"}]}',
    ):
        answer = await doors().wide.post(path, body)
        assert answer.status in (400, 404), answer.body
        assert answer.json()["error"]["message"]
