"""A grammar reaches vLLM in the words it obeys, or is refused as every engine refuses it; without a vLLM."""

from __future__ import annotations

from typing import Any

import llguidance
import pytest
from llguidance import LLMatcher

from gateway.testing import AppClient
from gateway.types import Receive, Scope, Send
from gateway_vllm.dialect import Dialect
from gateway_vllm.tools import Terms

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends back the request that it was given."""
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": message["body"]})


def client(**settings: Any) -> AppClient:
    return AppClient(Dialect(echo, is_down=lambda: False, **settings))


def takes(arrived: dict[str, Any], text: str) -> bool:
    """Whether what vLLM was asked allows this text."""
    assert list(arrived) == ["structured_outputs"] and list(arrived["structured_outputs"]) == ["grammar"]
    vocabulary = llguidance.LLTokenizer("byte")
    grammar = llguidance.grammar_from("grammar", arrived["structured_outputs"]["grammar"])
    matcher = LLMatcher(vocabulary, grammar)
    return matcher.consume_tokens(list(text.encode())) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("path", "asked", "param"),
    [
        (CHAT, {"n": 1_000_000}, "n"),
        (COMPLETIONS, {"n": 2, "prompt": ["a"] * 600}, "n"),
        (COMPLETIONS, {"prompt": [[1]] * 1100}, "prompt"),
        (CHAT, {"stop": ["a"] * 257}, "stop"),
        (COMPLETIONS, {"best_of": 3}, "best_of"),
        (CHAT, {"messages": []}, "messages"),
    ],
)
async def test_what_vllm_would_begin_or_ignore_is_refused(path: str, asked: dict[str, Any], param: str) -> None:
    answer = await client().post(path, asked)
    assert (answer.status, answer.json()["error"]["param"]) == (400, param)


async def test_a_body_within_its_limits_is_not_written_anew() -> None:
    body = {"prompt": list(range(2000)), "n": 1, "stop": ["a"]}
    assert (await client().post(COMPLETIONS, body)).json() == body


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("asked", "good", "bad"),
    [
        ({"response_format": FORMAT}, '{"a": 1}', '{"a":  1}'),
        ({"response_format": {"type": "json_object"}}, '{"x": []}', "[]"),
        ({"structured_outputs": {"json": SCHEMA}}, '{"a":1}', '{"b":1}'),
        ({"structured_outputs": {"json_object": True}}, "{}", "1"),
        ({"structured_outputs": {"regex": "a/b+|\\n"}}, "a/bb", "xa/b"),
        ({"structured_outputs": {"choice": ["one\n", "(two)"]}}, "one\n", "one"),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, "a", "b"),
        ({"guided_json": '{"type": "integer"}', "response_format": {"type": "text"}}, "12", '"x"'),
        ({"guided_regex": "a+"}, "aa", "b"),
        ({"guided_choice": ["yes", "no"]}, "no", "n"),
        ({"guided_grammar": 'start: "x"'}, "x", "y"),
    ],
)
async def test_every_spelling_is_one_that_vllm_obeys(path: str, asked: dict[str, Any], good: str, bad: str) -> None:
    arrived = (await client().post(path, asked)).json()
    assert takes(arrived, good)
    assert not takes(arrived, bad)


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": {"type": "text"}},
        {"response_format": None, "guided_json": None},
        {"structured_outputs": {"structural_tag": '{"structures": [], "triggers": []}'}},
        {"messages": [{"role": "user", "content": '"guided_regex": "a"'}]},
    ],
)
async def test_what_vllm_reads_itself_arrives_as_it_was(asked: dict[str, Any]) -> None:
    assert (await client().post(CHAT, asked)).json() == asked


async def test_other_backends_of_vllm_get_their_own_notation() -> None:
    theirs = client(terms=Terms(by_guidance=False))
    for asked, arrives in (
        ({"response_format": FORMAT}, {"json": SCHEMA}),
        ({"guided_choice": ["a.b", "c"]}, {"regex": "a\\.b|c"}),
        ({"guided_grammar": 'start: "x"'}, {"grammar": 'start: "x"'}),
    ):
        assert (await theirs.post(CHAT, asked)).json() == {"structured_outputs": arrives}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("asked", "param", "says"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "`schema`"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"description": "x" * 10_000_000}}}},
         "response_format.json_schema.schema", "131072 bytes"),
        ({"structured_outputs": {"json": {"type": "array", "uniqueItems": True}}},
         "structured_outputs.json", "uniqueItems"),
        ({"structured_outputs": {"json": {"$ref": "http://example.com/x"}}}, "structured_outputs.json", "ever fetched"),
        ({"structured_outputs": {"regex": "a" * 9000}}, "structured_outputs.regex", "8192 bytes"),
        ({"structured_outputs": {"choice": ["a"], "regex": "b"}}, "structured_outputs", "only one"),
        ({"structured_outputs": {"structural_tag": "x" * 200_000}}, "structured_outputs", "131072 bytes"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "at least one"),
        ({"response_format": FORMAT, "guided_choice": ["a"]}, "guided_choice", "only one"),
        ({"guided_json": {"type": "string", "pattern": "(?=a)"}}, "guided_json", "look-around"),
    ],
)  # fmt: skip
async def test_refuses_what_every_engine_refuses(path: str, asked: dict[str, Any], param: str, says: str) -> None:
    answer = await client().post(path, asked)
    assert answer.status == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert says in error["message"]
