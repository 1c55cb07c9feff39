"""Both doors: names, routes, fallback, errors in one shape, and exactly one record for each request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import Forbidden, Unavailable
from gateway.hookspecs import hookimpl
from gateway.ingress.forward import LAST_RESORT
from gateway.ingress.request import GatewayRequest
from gateway.types import Receive, Scope, Send

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
ROUTED = {
    "models": {"a": {"backend": "echo", "options": {"fail": 503}}, "b": {"backend": "echo"}},
    "routes": {"chat": {"targets": ["a", "b"]}, "dead": {"targets": ["a", "a"]}},
}


async def test_both_doors_answer_alike(doors: Any) -> None:
    gateway = doors()
    wide = await gateway.wide.post("/v1/chat/completions", {"model": "echo", **CHAT})
    lane = await gateway.lanes["echo"].post("/m/echo/v1/chat/completions", {"model": "echo", **CHAT})
    assert wide.status == lane.status == 200
    assert wide.json()["choices"] == lane.json()["choices"]
    assert wide.json()["choices"][0]["message"]["content"] == "hello"
    assert wide.headers["x-gateway-target"] == "echo"
    assert 0 <= float(lane.headers["x-gateway-overhead-ms"]) < 1000
    assert int(wide.headers["content-length"]) == len(wide.body)
    await gateway.door.close()
    assert [record.door for record in gateway.records] == ["wide", "lane"]
    assert gateway.records[0].usage.prompt_tokens == wide.json()["usage"]["prompt_tokens"]
    assert gateway.records[0].outcome == "ok"


async def test_a_request_without_a_model_goes_to_the_default(doors: Any) -> None:
    answer = await doors().wide.post("/v1/completions", {"prompt": "abc"})
    assert answer.status == 200
    assert answer.json()["choices"][0]["text"] == "abc"


async def test_unknown_models_are_404_and_the_message_lists_the_known(doors: Any) -> None:
    gateway = doors(ROUTED)
    answer = await gateway.wide.post("/v1/chat/completions", {"model": "nobody", **CHAT})
    assert answer.status == 404
    error = answer.json()["error"]
    assert error["code"] == "model_not_found"
    assert error["type"] == "invalid_request_error"
    assert "a, b, chat, dead" in error["message"]
    lane = await gateway.lanes["b"].post("/m/b/v1/chat/completions", {"model": "a", **CHAT})
    assert lane.status == 404


async def test_a_route_falls_back_before_the_first_byte_and_answers_with_the_name_asked_for(doors: Any) -> None:
    gateway = doors(ROUTED)
    for stream in (False, True):
        answer = await gateway.wide.post("/v1/chat/completions", {"model": "chat", "stream": stream, **CHAT})
        assert answer.status == 200
        assert answer.headers["x-gateway-target"] == "b"
        names = {event["model"] for event in answer.events()} if stream else {answer.json()["model"]}
        assert names == {"chat"}
    await gateway.door.close()
    assert [(record.model, record.target, record.attempts) for record in gateway.records] == [("chat", "b", 2)] * 2


async def test_a_target_that_is_down_gives_way_too(doors: Any) -> None:
    gateway = doors(ROUTED, down=["a"])
    answer = await gateway.wide.post("/v1/chat/completions", {"model": "chat", **CHAT})
    assert (answer.status, answer.headers["x-gateway-target"]) == (200, "b")


async def test_only_the_last_target_is_told_that_waiting_beats_giving_way(doors: Any) -> None:
    gateway = doors({**ROUTED, "routes": {"chat": {"targets": ["a", "b"]}}})
    told: list[bool] = []

    async def full(scope: Scope, receive: Receive, send: Send) -> None:
        told.append(scope[LAST_RESORT])
        raise Unavailable("away")

    gateway.fleet.observed = full
    assert (await gateway.wide.post("/v1/chat/completions", {"model": "chat", **CHAT})).status == 503
    assert told == [False, True]


async def test_when_every_target_fails_the_last_ones_error_is_the_answer(doors: Any) -> None:
    answer = await doors(ROUTED).wide.post("/v1/chat/completions", {"model": "dead", **CHAT})
    assert answer.status == 503
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_after_the_first_byte_there_is_no_fallback(doors: Any) -> None:
    gateway = doors(
        {
            "models": {"a": {"backend": "echo", "options": {"fail_after": 2, "delay_ms": 1}}, "b": {"backend": "echo"}},
            "routes": {"chat": {"targets": ["a", "b"]}},
        }
    )
    answer = await gateway.wide.post("/v1/chat/completions", {"model": "chat", "stream": True, **CHAT})
    assert answer.headers["x-gateway-target"] == "a"
    assert b'data: {"error"' in answer.body


async def test_the_client_gets_a_usage_chunk_only_if_it_asked(doors: Any) -> None:
    gateway = doors()
    body = {"model": "echo", "stream": True, **CHAT}
    without = await gateway.wide.post("/v1/chat/completions", body)
    with_usage = await gateway.wide.post("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
    assert all(event["choices"] for event in without.events())
    assert with_usage.events()[-1]["choices"] == []
    await gateway.door.close()
    # The gateway itself knows the usage of both.
    assert {record.usage for record in gateway.records} == {gateway.records[0].usage}
    assert gateway.records[0].usage.completion_tokens == with_usage.events()[-1]["usage"]["completion_tokens"] > 0


async def test_unknown_fields_reach_the_backend_unharmed(doors: Any) -> None:
    gateway = doors({"routes": {"alias": {"targets": ["echo"]}}})
    echo = gateway.fleet.backends["echo"].app
    seen: list[bytes] = []

    async def observed(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        seen.append(message["body"])

        bodies = iter([message])

        async def again() -> Any:
            return next(bodies, None) or await receive()

        await echo(scope, again, send)

    gateway.fleet.observed = observed
    raw = b'{"model":"echo","prompt":"x","future":{"deep":[1.50,"\\u00e9",123456789012345678901234567890]},"n" : 1}'
    answer = await gateway.wide.post("/v1/completions", raw)
    assert answer.status == 200
    # Where something had to change (the route's name), every other value is still the client's bytes.
    renamed = await gateway.wide.post("/v1/completions", raw.replace(b'"echo"', b'"alias"'))
    assert renamed.status == 200
    assert seen == [raw, raw.replace(b'"n" : 1', b'"n":1')]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON object"),
        (b"[1]", "JSON object"),
        (b'{"model":', "JSON object"),
        (b'{"model":5}', "`model`"),
        (b'{"stream":"yes"}', "`stream`"),
        (b'{"stream":true,"stream_options":5}', "`stream_options`"),
        (b"\xff\xfe", "JSON object"),
        (b'{"a":' * 5000, "JSON object"),
    ],
)
async def test_bodies_that_cannot_be_read_are_400(doors: Any, body: bytes, says: str) -> None:
    answer = await doors().wide.post("/v1/chat/completions", body)
    assert answer.status == 400
    assert says in answer.json()["error"]["message"]


async def test_paths_that_do_not_exist_are_404_in_the_same_shape(doors: Any) -> None:
    answer = await doors().wide.get("/nothing")
    assert answer.status == 404
    assert answer.json()["error"]["code"] == "not_found"


async def test_a_client_that_leaves_ends_the_generation_and_is_recorded_as_disconnected(doors: Any) -> None:
    gateway = doors({"models": {"echo": {"backend": "echo", "options": {"delay_ms": 50}}}})
    backend = gateway.fleet.backends["echo"]
    for how in ("disconnect", "cancel"):
        async with gateway.wide.open(
            "POST",
            "/v1/chat/completions",
            {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "x" * 200}]},
        ) as exchange:
            await exchange.next_body()
            assert backend.running() == 1
            await exchange.leave(how)
            await asyncio.sleep(0.3)
            assert backend.running() == 0
    await gateway.door.close()
    assert [record.outcome for record in gateway.records] == ["disconnected", "disconnected"]


async def test_guards_refuse_and_rewrite(doors: Any) -> None:
    class Guardian:
        @hookimpl
        async def guard_request(self, request: GatewayRequest) -> None:
            if b"secret" in request.body:
                raise Forbidden("no secrets here")
            request.set("prompt", "rewritten")

    gateway = doors(extra=[Guardian()])
    refused = await gateway.wide.post("/v1/completions", {"prompt": "a secret"})
    assert (refused.status, refused.json()["error"]["message"]) == (403, "no secrets here")
    rewritten = await gateway.wide.post("/v1/completions", {"prompt": "hello"})
    assert rewritten.json()["choices"][0]["text"] == "rewritten"


async def test_models_page_lists_models_and_routes_with_their_addresses(doors: Any) -> None:
    gateway = doors(ROUTED, down=["a"])
    rows = {row["id"]: row for row in (await gateway.wide.get("/v1/models")).json()["data"]}
    assert list(rows) == ["a", "b", "chat", "dead"]
    assert rows["b"]["gateway"]["url"] == "http://127.0.0.1/m/b/v1"
    assert rows["b"]["gateway"]["backend"] == "echo"
    assert rows["b"]["max_model_len"] == 32768
    assert [rows["a"]["gateway"]["up"], rows["b"]["gateway"]["up"]] == [False, True]
    one = await gateway.wide.get("/v1/models/b")
    assert one.json() == rows["b"]
    assert (await gateway.wide.get("/v1/models/none")).status == 404
    assert (await gateway.wide.post("/v1/models", {})).status == 405
    health = await gateway.wide.get("/health")
    assert (health.status, health.json()["status"]) == (200, "degraded")
    assert (await doors(ROUTED, down=["a", "b"]).wide.get("/health")).status == 503


async def test_metrics_count_both_doors(doors: Any) -> None:
    gateway = doors()
    await gateway.wide.post("/v1/chat/completions", {"model": "echo", "stream": True, **CHAT})
    await gateway.lanes["echo"].post("/m/echo/v1/chat/completions", CHAT)
    await gateway.wide.post("/v1/chat/completions", {"model": "invented-" + "x" * 50, **CHAT})
    page = (await gateway.wide.get("/metrics")).body.decode()
    for door in ("wide", "lane"):
        assert (
            f'gateway_requests_total{{door="{door}",model="echo",outcome="ok",replica="r1",target="echo"}} 1.0' in page
        )
    labels = 'door="wide",model="echo",outcome="ok",replica="r1",target="echo"'
    assert f"gateway_time_to_first_token_seconds_count{{{labels}}} 1.0" in page
    assert "gateway_completion_tokens_total" in page
    assert "invented" not in page
