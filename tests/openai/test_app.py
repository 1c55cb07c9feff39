"""Pages, methods, mounts and lifespans."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.engine import Delta, EngineInfo
from gateway.errors import Unavailable
from gateway.openai import build_app
from gateway.testing import AppClient
from gateway_echo.tokenizer import ByteTokenizer

DONE = Delta([65], finish_reason="length")


async def test_unknown_pages_and_methods(dictate: Any) -> None:
    _, client = dictate(DONE)
    assert (await client.get("/v1/nothing")).status == 404
    missing = await client.get("/v1/models/other")
    assert (missing.status, missing.json()["error"]["code"]) == (404, "model_not_found")
    wrong = await client.get("/v1/completions")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")


async def test_its_own_row_of_the_models(dictate: Any) -> None:
    engine, _ = dictate(DONE)
    info = EngineInfo("m", engine="dictated", created=12, extra={"root": "org/m", "gateway": {"dtype": "float32"}})
    client = AppClient(build_app(engine, info))
    row = {"id": "m", "object": "model", "created": 12, "owned_by": "model-gateway", "root": "org/m", "parent": None}
    row |= {"max_model_len": 1000, "gateway": {"dtype": "float32"}}
    assert (await client.get("/v1/models")).json() == {"object": "list", "data": [row]}
    assert (await client.get("/v1/models/m")).json() == row


async def test_works_under_a_mount(dictate: Any) -> None:
    _, client = dictate(DONE)
    inner = client.app

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "root_path": "/m/x"}, receive, send)

    answer = await AppClient(mounted).post("/m/x/v1/completions", {"prompt": "a"})
    assert answer.json()["choices"][0]["text"] == "A"


async def test_lifespan_is_answered(dictate: Any) -> None:
    _, client = dictate(DONE)
    told = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": next(told)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await client.app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_health_says_what_it_is_given(dictate: Any) -> None:
    engine, client = dictate(DONE)
    assert (await client.get("/health")).json() == {"status": "ok"}

    def ill() -> dict[str, Any]:
        raise Unavailable("the engine is dead")

    sick = AppClient(build_app(engine, EngineInfo("m", engine="dictated"), health=ill))
    assert (await sick.get("/health")).status == 503


async def test_a_body_in_pieces_is_read_whole(dictate: Any) -> None:
    _, client = dictate(DONE)
    pieces = [b'{"prom', b'pt": "a"', b"}"]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    await client.app({"type": "http", "method": "POST", "path": "/v1/completions"}, receive, send)
    assert sent[0]["status"] == 200


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"prompt": "x" * 200_000}, "prompt"),
        ("/v1/completions", {"prompt": ["x", "x" * 200_000]}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 200_000}]}, "messages"),
    ],
)
async def test_a_text_that_can_never_fit_is_refused_before_it_is_tokenized(
    dictate: Any, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any], param: str
) -> None:
    engine, client = dictate(DONE)
    longest = 0
    encode = engine.tokenizer.encode

    def counted(text: str, **settings: Any) -> list[int]:
        nonlocal longest
        longest = max(longest, len(text))
        return encode(text, **settings)

    monkeypatch.setattr(engine.tokenizer, "longest_token", 100, raising=False)
    monkeypatch.setattr(engine.tokenizer, "encode", counted)
    refused = (await client.post(path, body)).json()["error"]
    assert (refused["code"], refused["param"]) == ("context_length_exceeded", param)
    assert longest <= 1


async def test_tokens_and_text(dictate: Any) -> None:
    _, client = dictate(DONE)
    tokenizer = ByteTokenizer()
    plain = {"prompt": "hé", "add_special_tokens": False, "return_token_strs": True}
    body = (await client.post("/tokenize", plain)).json()
    assert body == {
        "tokens": [104, 195, 169],
        "count": 3,
        "max_model_len": 1000,
        "token_strs": ["h", "\ufffd", "\ufffd"],
    }
    assert (await client.post("/detokenize", {"tokens": body["tokens"]})).json() == {"prompt": "hé"}
    assert (await client.post("/tokenize", {"prompt": "h"})).json()["tokens"] == tokenizer.encode("h")
    messages = [{"role": "user", "content": "hi"}]
    chat = tokenizer.encode(tokenizer.render_chat(messages), add_special_tokens=False)
    for asked in ({"messages": messages}, {"prompt": messages}):
        assert (await client.post("/tokenize", asked)).json()["tokens"] == chat
    long = (await client.post("/tokenize", {"prompt": "x" * 50_000, "add_special_tokens": False})).json()
    assert long["count"] == 50_000
    info = (await client.get("/tokenizer_info")).json()
    assert (info["eos_token"], info["eos_token_ids"], info["chat_template"]) == (
        "<|end|>",
        [258],
        tokenizer.chat_template,
    )
