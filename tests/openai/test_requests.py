"""Whatever a client sends, the answer is an answer or an error that names the field; never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.engine import Delta, TokenLogprob
from gateway.openai.requests import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
DONE = Delta([65], finish_reason="length")


@pytest.mark.parametrize(
    "path,body,param",
    [
        (COMPLETIONS, b"", None),
        (COMPLETIONS, b"{", None),
        (COMPLETIONS, b"[]", None),
        (COMPLETIONS, b'"x"', None),
        (COMPLETIONS, b'{"prompt": "\\ud800"}', None),
        (COMPLETIONS, b'{"prompt": "\xff"}', None),
        (COMPLETIONS, b"[" * 200_000, None),
        (COMPLETIONS, b'{"prompt": "x", "user": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", None),
        (COMPLETIONS, b'{"prompt": "x", "temperature": NaN}', "temperature"),
        (COMPLETIONS, b'{"prompt": "x", "temperature": Infinity}', "temperature"),
        (COMPLETIONS, b'{"prompt": "x", "temperature": 1e999}', "temperature"),
        (COMPLETIONS, b'{"prompt": "x", "max_tokens": 1' + b"0" * 5000 + b"}", "max_tokens"),
        (COMPLETIONS, {"prompt": "x", "temperature": -0.1}, "temperature"),
        (COMPLETIONS, {"prompt": "x", "temperature": "hot"}, "temperature"),
        (COMPLETIONS, {"prompt": "x", "top_p": 0}, "top_p"),
        (COMPLETIONS, {"prompt": "x", "top_p": 1.1}, "top_p"),
        (COMPLETIONS, {"prompt": "x", "top_k": -2}, "top_k"),
        (COMPLETIONS, {"prompt": "x", "seed": 2**63}, "seed"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": -1}, "max_tokens"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 0}, "max_tokens"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 1.5}, "max_tokens"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": True}, "max_tokens"),
        (COMPLETIONS, {"prompt": "x", "n": 0}, "n"),
        (COMPLETIONS, {"prompt": "x", "n": 100_000}, "n"),
        (COMPLETIONS, {"prompt": ["x"] * 2000}, "prompt"),
        (COMPLETIONS, {"prompt": "x", "logprobs": 21}, "logprobs"),
        (COMPLETIONS, {"prompt": "x", "logprobs": -1}, "logprobs"),
        (COMPLETIONS, {"prompt": "x", "stop": ""}, "stop"),
        (COMPLETIONS, {"prompt": "x", "stop": ["a", ""]}, "stop"),
        (COMPLETIONS, {"prompt": "x", "stop": [1]}, "stop[0]"),
        (COMPLETIONS, {"prompt": "x", "stop": "x" * 1025}, "stop"),
        (COMPLETIONS, {"prompt": "x", "stop": ["a"] * 3 + [f"{n}" for n in range(300)]}, "stop"),
        (COMPLETIONS, {}, "prompt"),
        (COMPLETIONS, {"prompt": []}, "prompt"),
        (COMPLETIONS, {"prompt": [[]]}, "prompt"),
        (COMPLETIONS, {"prompt": ["a", 1]}, "prompt"),
        (COMPLETIONS, {"prompt": [{"role": "user"}]}, "prompt"),
        (COMPLETIONS, {"prompt": [-1]}, "prompt"),
        (COMPLETIONS, {"prompt": [10**30]}, "prompt"),
        (CHAT, {}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": "hi"}, "messages"),
        (CHAT, {"messages": [{"content": "hi"}]}, "messages[0].role"),
        (CHAT, {"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        (CHAT, {"messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (CHAT, {"messages": MESSAGES, "max_tokens": 0}, "max_tokens"),
        (CHAT, {"messages": MESSAGES, "max_completion_tokens": -5}, "max_completion_tokens"),
        (CHAT, {"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs"),
        (CHAT, {"messages": MESSAGES, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (CHAT, {"messages": MESSAGES, "chat_template_kwargs": {"self": 1}}, "chat_template_kwargs"),
        (CHAT, {"messages": MESSAGES, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": [1]}, "prompt"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [10**30]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
    ],
)
async def test_what_cannot_be_is_a_400_that_names_its_field(dictate: Any, path: str, body: Any, param: str) -> None:
    engine, client = dictate(DONE)
    answer = await client.post(path, body)
    assert answer.status == 400, answer.body
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert engine.asked == []


@pytest.mark.parametrize(
    "path,fields",
    [
        (CHAT, {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}),
        (CHAT, {"tools": [{"type": "web_search"}]}),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}}),
        (CHAT, {"response_format": {"type": "json_object"}}),
        (CHAT, {"echo": True}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
        (COMPLETIONS, {"best_of": 3}),
        (COMPLETIONS, {"suffix": "end"}),
        (COMPLETIONS, {"guided_regex": "a+"}),
    ],
)
async def test_what_would_be_ignored_is_refused_by_name(dictate: Any, path: str, fields: dict[str, Any]) -> None:
    engine, client = dictate(DONE)
    answer = await client.post(path, {"messages": MESSAGES, "prompt": "x", **fields})
    assert answer.status == 400, answer.body
    error = answer.json()["error"]
    assert error["code"] == "unsupported_feature"
    assert "dictated" in error["message"]
    assert engine.asked == []


async def test_what_changes_nothing_is_taken(dictate: Any) -> None:
    harmless = {
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "logit_bias": {},
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "best_of": 1,
        "prompt_logprobs": None,
        "suffix": None,
        "min_p": 0,
        "stop": [],
        "n": None,
        "user": "u",
        "unknown": {"a": [1]},
        "top_k": -1,
        "seed": -1,
        "ignore_eos": True,
    }
    _, client = dictate(DONE)
    for path in (CHAT, COMPLETIONS):
        answer = await client.post(path, {"messages": MESSAGES, "prompt": "x", "max_tokens": 1, **harmless})
        assert answer.status == 200, answer.body


async def test_parts_and_nulls_are_messages_too(dictate: Any) -> None:
    engine, client = dictate(DONE)
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "assistant", "name": None, "content": None},
        {"role": "user", "name": None, "content": parts},
    ]
    assert (await client.post(CHAT, {"messages": messages, "max_tokens": 1})).status == 200
    assert bytes(token for token in engine.asked[0].prompt if token < 256) == b"one\ntwo"


async def test_the_context_is_all_there_is(dictate: Any) -> None:
    engine, client = dictate(DONE)
    for path, asked in (
        (COMPLETIONS, {"prompt": [65] * 990, "max_tokens": 11}),
        (COMPLETIONS, {"prompt": [65] * 1000, "max_tokens": 1}),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 10**30}),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 2000}]}),
    ):
        answer = await client.post(path, asked)
        assert answer.status == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"
    await client.post(COMPLETIONS, {"prompt": [65] * 990, "max_tokens": 10})
    await client.post(CHAT, {"messages": MESSAGES})
    assert [generation.sampling.max_tokens for generation in engine.asked] == [10, 1000 - 4]


async def test_sampling_arrives_as_asked(dictate: Any) -> None:
    engine, client = dictate(DONE)
    asked = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 3, "ignore_eos": True, "max_completion_tokens": 9}
    await client.post(CHAT, {"messages": MESSAGES, "max_tokens": 99, **asked})
    how = engine.asked[0].sampling
    assert (how.temperature, how.top_p, how.top_k, how.seed, how.ignore_eos) == (0.5, 0.9, 7, 3, True)
    assert (how.max_tokens, how.logprobs) == (9, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    [
        field
        for kind in (ChatRequest, CompletionRequest, TokenizeRequest, DetokenizeRequest)
        for field in kind.__struct_fields__
    ]
)


@given(st.sampled_from([CHAT, COMPLETIONS, "/tokenize", "/detokenize"]), st.dictionaries(FIELDS, JSON, max_size=5))
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_no_body_is_a_500(dictate: Any, path: str, fields: dict[str, Any]) -> None:
    _, client = dictate(Delta([65], [TokenLogprob(-1.0, ((65, -1.0),))], "length"))
    body = json.dumps({"messages": MESSAGES, "prompt": "x", **fields}, ensure_ascii=True).encode()
    assert (await client.post(path, body)).status in (200, 400, 404)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"hello": 1}}, "logit_bias"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": -1}, "repetition_penalty"),
        ({"min_p": 1.5}, "min_p"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"stop_token_ids": [999999]}, "stop_token_ids"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [-5]}, "allowed_token_ids"),
    ],
)
async def test_a_rule_out_of_its_range_is_named(dictate: Any, fields: dict[str, Any], param: str) -> None:
    engine, client = dictate(DONE)
    answer = await client.post(COMPLETIONS, {"prompt": "x", **fields})
    assert answer.status == 400, answer.body
    assert answer.json()["error"]["param"] == param
    assert engine.asked == []


async def test_rules_reach_the_engine(dictate: Any) -> None:
    engine, client = dictate(DONE)
    rules: dict[str, Any] = {
        "presence_penalty": 0.5, "frequency_penalty": -1, "repetition_penalty": 1.2, "min_p": 0.1, "min_tokens": 2,
        "stop_token_ids": [3], "allowed_token_ids": [1, 2, 3],
    }  # fmt: skip
    await client.post(COMPLETIONS, {"prompt": "x", "logit_bias": {"7": -3.5}, **rules})
    sampling = engine.asked[0].sampling
    assert sampling.logit_bias == {7: -3.5}
    assert {name: getattr(sampling, name) for name in rules} == {
        **rules, "stop_token_ids": (3,), "allowed_token_ids": (1, 2, 3),
    }  # fmt: skip
