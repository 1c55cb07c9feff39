"""Echo and log-probabilities, as evaluation harnesses read them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gateway.engine import Delta, TokenLogprob

COMPLETIONS = "/v1/completions"
A, B, C = b"abc"


async def test_echo_scores_the_prompt_and_one_more_token(dictate: Any) -> None:
    scores = [None, TokenLogprob(-1.5, ((A, -0.5),)), TokenLogprob(-0.25, ((C, -0.25),))]
    _, client = dictate(Delta([A], [TokenLogprob(-0.125, ((A, -0.125),))], "length"), scores=scores)
    asked = {"prompt": [[A, B, C]], "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0, "seed": 1234}
    for stream in (False, True):
        answer = await client.post(COMPLETIONS, {**asked, "stream": stream})
        (body,) = answer.events() if stream else [answer.json()]
        choice = body["choices"][0]
        assert choice["text"] == "abca"
        assert choice["logprobs"] == {
            "tokens": ["a", "b", "c", "a"],
            "token_logprobs": [None, -1.5, -0.25, -0.125],
            "top_logprobs": [None, {"a": -0.5, "b": -1.5}, {"c": -0.25}, {"a": -0.125}],
            "text_offset": [0, 1, 2, 3],
        }


async def test_the_end_token_counts_as_the_one_more(dictate: Any) -> None:
    _, client = dictate(
        Delta([258], [TokenLogprob(-0.5, ((258, -0.5),))], "stop"), scores=[None, TokenLogprob(-1.0, ((B, -1.0),))]
    )
    body = (await client.post(COMPLETIONS, {"prompt": [A, B], "max_tokens": 1, "logprobs": 1, "echo": True})).json()
    choice = body["choices"][0]
    assert choice["text"] == "ab"
    assert choice["logprobs"]["tokens"] == ["a", "b", "<|end|>"]
    assert choice["logprobs"]["text_offset"] == [0, 1, 2]
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}


async def test_scores_without_generating(dictate: Any) -> None:
    engine, client = dictate(scores=[None, TokenLogprob(-1.0)])
    body = (await client.post(COMPLETIONS, {"prompt": [A, B], "max_tokens": 0, "logprobs": 0, "echo": True})).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["logprobs"]["top_logprobs"] == [None, {"b": -1.0}]
    assert body["usage"]["completion_tokens"] == 0
    assert engine.asked == []


async def test_minus_infinity_is_clamped_and_alike_tokens_keep_the_likelier(dictate: Any) -> None:
    # 0xFF and 0xFE are no characters: both are shown as U+FFFD.
    scores = [None, TokenLogprob(-math.inf, ((0xFF, -0.5), (0xFE, -3.0))), TokenLogprob(-3.0, ((0xFF, -0.5),))]
    _, client = dictate(scores=scores)
    asked = {"prompt": [A, B, 0xFE], "max_tokens": 0, "logprobs": 2, "echo": True}
    logprobs = (await client.post(COMPLETIONS, asked)).json()["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"] == [None, -9999.0, -3.0]
    assert logprobs["top_logprobs"] == [None, {"\ufffd": -0.5, "b": -9999.0}, {"\ufffd": -0.5}]


async def test_offsets_count_characters_not_bytes(dictate: Any) -> None:
    ids = list("é!".encode())
    _, client = dictate(scores=[None, TokenLogprob(-1.0), TokenLogprob(-1.0)])
    asked = {"prompt": ids, "max_tokens": 0, "logprobs": 0, "echo": True}
    choice = (await client.post(COMPLETIONS, asked)).json()["choices"][0]
    assert choice["text"] == "é!"
    assert choice["logprobs"]["text_offset"] == [0, 0, 1]


@pytest.mark.parametrize(
    "prompt,ids",
    [
        ("ab", [[A, B, 257]]),
        (["a", "b"], [[A, 257], [B, 257]]),
        ([A, B], [[A, B]]),
        ([[A], [B, C]], [[A], [B, C]]),
    ],
)
async def test_prompts_come_in_four_forms_and_choices_in_their_order(dictate: Any, prompt: Any, ids: Any) -> None:
    engine, client = dictate(Delta([A], finish_reason="length"))
    body = (await client.post(COMPLETIONS, {"prompt": prompt, "n": 2, "seed": 5, "max_tokens": 1})).json()
    assert [choice["index"] for choice in body["choices"]] == list(range(2 * len(ids)))
    by_id = sorted(engine.asked, key=lambda generation: int(generation.id.rpartition("-")[2]))
    assert [list(generation.prompt) for generation in by_id] == [own for own in ids for _ in range(2)]
    assert [generation.sampling.seed for generation in by_id] == [5, 6] * len(ids)
    assert body["usage"]["prompt_tokens"] == sum(map(len, ids))


async def test_echo_without_logprobs_spells_the_prompt(dictate: Any) -> None:
    _, client = dictate(Delta([C], finish_reason="length"))
    for prompt, text in (("ab", "abc"), ([256, A, B], "<|start|>abc")):
        asked = {"prompt": prompt, "max_tokens": 1, "echo": True}
        assert (await client.post(COMPLETIONS, asked)).json()["choices"][0]["text"] == text
        (event,) = (await client.post(COMPLETIONS, {**asked, "stream": True})).events()
        assert event["choices"][0]["text"] == text


async def test_offsets_of_generated_text_count_characters_too(dictate: Any) -> None:
    ids = [*"☃!".encode(), 258]
    _, client = dictate(Delta(ids, [TokenLogprob(-1.0)] * 5, "stop"))
    choice = (await client.post(COMPLETIONS, {"prompt": "x", "logprobs": 0})).json()["choices"][0]
    assert choice["text"] == "☃!"
    assert choice["logprobs"]["text_offset"] == [0, 0, 0, 1, 2]


@pytest.mark.parametrize("scores", [[None], [None, None, None]])
async def test_scores_of_another_length_are_the_engines_fault(dictate: Any, scores: Any) -> None:
    _, client = dictate(scores=scores)
    asked = {"prompt": [A, B], "max_tokens": 0, "logprobs": 0, "echo": True}
    assert (await client.post(COMPLETIONS, asked)).status == 502


async def test_an_engine_without_logprobs_must_not_pass_for_one_with(dictate: Any) -> None:
    _, client = dictate(Delta([A], finish_reason="length"))
    assert (await client.post(COMPLETIONS, {"prompt": [A], "logprobs": 1})).status == 502


async def test_chat_logprobs_have_the_shape_of_chat(dictate: Any) -> None:
    tokens = Delta([A, 0xE2], [TokenLogprob(-0.5, ((A, -0.5), (B, -math.inf)))] * 2, "length")
    _, client = dictate(tokens)
    asked = {"messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": 2}
    content = (await client.post("/v1/chat/completions", asked)).json()["choices"][0]["logprobs"]["content"]
    assert content[0] == {
        "token": "a",
        "logprob": -0.5,
        "bytes": [97],
        "top_logprobs": [
            {"token": "a", "logprob": -0.5, "bytes": [97]},
            {"token": "b", "logprob": -9999.0, "bytes": [98]},
        ],
    }
    assert content[1]["bytes"] == [0xE2]
    events = (await client.post("/v1/chat/completions", {**asked, "stream": True})).events()
    assert [len(event["choices"][0]["logprobs"]["content"]) for event in events] == [1, 1]
