"""The fields that ask for a grammar: each spelling reaches the engine as a constraint, each mistake is a 400."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.engine import Delta, EngineInfo
from gateway.openai import build_app
from gateway.openai.guidance import of_tokens
from gateway.testing import AppClient
from gateway_echo.tokenizer import ByteTokenizer

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ASKED = {"messages": [{"role": "user", "content": "hi"}], "prompt": "x"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
DONE = Delta([258], finish_reason="stop")


class Guided(ByteTokenizer):
    """Bytes that can be guided."""

    def __init__(self) -> None:
        self.guidance = of_tokens(self, [256, 257, 258])


@pytest.fixture
def guided(dictate: Any) -> Any:
    """An engine whose tokenizer can be guided, and a client of its endpoints."""
    engine, _ = dictate(DONE)
    engine.tokenizer = Guided()
    return engine, AppClient(build_app(engine, EngineInfo("m", engine="dictated")))


def first_bytes(constraint: Any) -> bytes:
    mask = np.zeros(9, np.int32)
    constraint.allow(mask)
    return bytes(np.flatnonzero(np.unpackbits(mask.view(np.uint8)[:32], bitorder="little")).tolist())


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("fields", "first"),
    [
        ({"response_format": {"type": "json_object"}}, b"{"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}, b"{"),
        ({"structured_outputs": {"json": SCHEMA, "regex": None, "disable_any_whitespace": True}}, b"{"),
        ({"structured_outputs": {"json": '{"type": "boolean"}', "json_object": False}}, b"ft"),
        ({"structured_outputs": {"json_object": True}}, b"{"),
        ({"structured_outputs": {"regex": "[xyz]+"}}, b"xyz"),
        ({"structured_outputs": {"choice": ["ja", "nein"]}, "response_format": {"type": "text"}}, b"jn"),
        ({"structured_outputs": {"grammar": 'root ::= "p" | "q"'}}, b"pq"),
        ({"guided_json": {"type": "null"}}, b"n"),
        ({"guided_regex": "k"}, b"k"),
        ({"guided_choice": ["+", "-"]}, b"+-"),
        ({"guided_grammar": 'start: "s"'}, b"s"),
    ],
)
async def test_every_spelling_becomes_a_constraint(guided: Any, path: str, fields: Any, first: bytes) -> None:
    engine, client = guided
    answer = await client.post(path, {**ASKED, **fields, "n": 2})
    assert answer.status == 200, answer.body
    one, other = [generation.constraint for generation in engine.asked]
    assert first_bytes(one) == first
    one.accept(first[0])
    assert first_bytes(other) == first, "each choice has a place of its own"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "fields",
    [{}, {"response_format": {"type": "text"}}, {"structured_outputs": {}}, {"structured_outputs": {"regex": None}}],
)
async def test_what_asks_for_nothing_has_no_constraint(guided: Any, path: str, fields: Any) -> None:
    engine, client = guided
    assert (await client.post(path, {**ASKED, **fields})).status == 200
    assert [generation.constraint for generation in engine.asked] == [None]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"response_format": "json"}, "response_format", None),
        ({"response_format": {}}, "response_format.type", None),
        ({"response_format": {"type": 1}}, "response_format.type", None),
        ({"response_format": {"type": "xml"}}, "response_format.type", "unsupported_feature"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.type", "unsupported_feature"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", None),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema", None),
        ({"structured_outputs": []}, "structured_outputs", None),
        ({"structured_outputs": {"unknown": 1}}, "structured_outputs", None),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json", None),
        ({"structured_outputs": {"json": "[" * 100_000}}, "structured_outputs.json", None),
        ({"structured_outputs": {"json_object": "yes"}}, "structured_outputs.json_object", None),
        ({"structured_outputs": {"json_object": True, "regex": "a"}}, "structured_outputs", None),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag", "unsupported_feature"),
        ({"structured_outputs": {"regex": "a", "whitespace_pattern": " *"}},
         "structured_outputs.whitespace_pattern", "unsupported_feature"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice", None),
        ({"guided_choice": "a"}, "guided_choice", None),
        ({"guided_regex": "("}, "guided_regex", None),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(guided: Any, path: str, fields: Any, param: str, code: str | None) -> None:
    engine, client = guided
    for stream in (False, True):
        answer = await client.post(path, {**ASKED, **fields, "stream": stream})
        assert answer.status == 400, answer.body
        error = answer.json()["error"]
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert engine.asked == []


async def test_an_engine_that_cannot_is_named(dictate: Any) -> None:
    engine, client = dictate(DONE)
    answer = await client.post(CHAT, {**ASKED, "response_format": {"type": "json_object"}})
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_feature", "response_format")
    assert "dictated" in error["message"]
    assert engine.asked == []
