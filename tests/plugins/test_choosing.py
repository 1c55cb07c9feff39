"""Grammars, biases and penalties on a real model and both of our engines: an answer is what was asked for."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from jsonschema.validators import validator_for  # pyright: ignore[reportUnknownVariableType]

from gateway.backend import BackendContext
from gateway.config import ModelSpec
from gateway.testing import AppClient
from gateway_onnx.backend import OnnxBackend
from gateway_torch.backend import TorchBackend
from tests.rows import SHARE

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
QUESTION = [{"role": "user", "content": "Tell me about Paris as JSON."}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "size": {"enum": ["small", "large"]},
        "rivers": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
    },
    "required": ["city", "size", "rivers"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": SCHEMA}}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[TorchBackend, OnnxBackend])
async def client(request: Any, smollm2_folder: Path) -> AsyncIterator[AppClient]:
    kind: type[TorchBackend | OnnxBackend] = request.param
    digest = smollm2_folder.name.removesuffix("-hf1")
    backend = kind(
        BackendContext(
            "m",
            ModelSpec(backend=kind.__module__, resources=SHARE),
            smollm2_folder,
            digest=digest,
        )
    )
    await backend.start()
    try:
        yield AppClient(backend.app)
    finally:
        await backend.stop()


async def test_a_schema_holds(client: AppClient) -> None:
    judge: Any = validator_for(SCHEMA)(SCHEMA)
    asked = {"messages": QUESTION, "max_tokens": 80, "temperature": 1.2, "seed": 1, "response_format": FORMAT}
    whole = (await client.post(CHAT, {**asked, "n": 2})).json()
    for choice in whole["choices"]:
        assert choice["finish_reason"] == "stop"
        judge.validate(json.loads(choice["message"]["content"]))
    events = (await client.post(CHAT, {**asked, "stream": True})).events()
    assert (
        "".join([e["choices"][0]["delta"].get("content", "") for e in events])
        == whole["choices"][0]["message"]["content"]
    )


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"structured_outputs": {"regex": r"\d{3}-\d{4}"}}, r"\d{3}-\d{4}"),
        ({"structured_outputs": {"choice": ["Lyon", "Marseille", "Nice"]}}, "Lyon|Marseille|Nice"),
        ({"guided_grammar": 'root ::= "a" [bc]{2,5} "d"'}, "a[bc]{2,5}d"),
    ],
)
async def test_texts_hold(client: AppClient, fields: dict[str, Any], pattern: str) -> None:
    asked = {"prompt": ["Call", "Go to"], "n": 2, "max_tokens": 16, "temperature": 1.5, "seed": 7, **fields}
    answer = (await client.post(COMPLETIONS, asked)).json()
    for choice in answer["choices"]:
        assert choice["finish_reason"] == "stop"
        assert re.fullmatch(pattern, choice["text"])


async def test_what_does_not_fit_says_length(client: AppClient) -> None:
    answer = (await client.post(CHAT, {"messages": QUESTION, "max_tokens": 3, "response_format": FORMAT})).json()
    assert answer["choices"][0]["finish_reason"] == "length"


ONE_TO_FIVE = {"prompt": "1, 2, 3, 4, 5,", "temperature": 0, "max_tokens": 12}


async def said(client: AppClient, **asked: Any) -> dict[str, Any]:
    answer = await client.post(COMPLETIONS, {**ONE_TO_FIVE, **asked})
    assert answer.status == 200, answer.body
    return answer.json()["choices"][0]


async def together(client: AppClient, *asked: dict[str, Any], **all_of_them: Any) -> list[dict[str, Any]]:
    return await asyncio.gather(*[said(client, **all_of_them, **one) for one in asked])


async def token(client: AppClient, text: str) -> int:
    tokens = (await client.post("/tokenize", {"prompt": text, "add_special_tokens": False})).json()["tokens"]
    assert len(tokens) == 1
    return tokens[0]


async def test_a_bias_forces_and_forbids(client: AppClient) -> None:
    dog, six = await token(client, " dog"), await token(client, "6")
    plain, forced, forbidden, allowed = await together(
        client,
        {},
        {"logit_bias": {str(dog): 100}, "max_tokens": 3},
        {"logit_bias": {str(six): -100}},
        {"allowed_token_ids": [dog], "max_tokens": 2},
    )
    assert plain["text"].startswith(" 6, 7, 8")
    assert forced["text"] == " dog dog dog"
    assert "6" not in forbidden["text"]
    assert allowed["text"] == " dog dog"


async def test_penalties_keep_from_repeating(client: AppClient) -> None:
    penalties = {"frequency_penalty": 2, "presence_penalty": 2, "repetition_penalty": 2.0}
    asked = [{}, *({name: value} for name, value in penalties.items())]
    plain, *penalized = [found["text"] for found in await together(client, *asked, max_tokens=24)]
    assert plain.count(",") >= 6
    for name, text in zip(penalties, penalized, strict=True):
        assert text.count(",") < plain.count(","), name


async def test_stop_tokens_end_and_are_not_shown_and_min_tokens_holds_them_off(client: AppClient) -> None:
    seven = await token(client, "7")
    stopped, later = await together(client, {}, {"min_tokens": 8}, stop_token_ids=[seven])
    assert (stopped["text"], stopped["finish_reason"]) == (" 6, ", "stop")
    assert "7" not in later["text"]
    chat = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
    both = [client.post(CHAT, {**chat, "max_tokens": 16, **more}) for more in ({}, {"min_tokens": 12})]
    short, long = [answer.json()["usage"]["completion_tokens"] for answer in await asyncio.gather(*both)]
    assert (short, long >= 12) == (8, True)


async def test_min_p_leaves_the_likely_and_a_seed_repeats(client: AppClient) -> None:
    seeded = {"temperature": 1.5, "seed": 5, "frequency_penalty": 0.5}
    asked = [{}, {"temperature": 1, "min_p": 1}, seeded, seeded]
    plain, likely, one, other = [found["text"] for found in await together(client, *asked)]
    assert likely == plain
    assert one == other


async def test_logprobs_are_the_models_own_beside_rules(client: AppClient) -> None:
    plain = await said(client, logprobs=1, max_tokens=1)
    biased = await said(client, logprobs=1, max_tokens=1, logit_bias={str(await token(client, " dog")): 100})
    assert biased["text"] == " dog"
    best = max(plain["logprobs"]["top_logprobs"][0].values())
    assert max(biased["logprobs"]["top_logprobs"][0].values()) == pytest.approx(best, abs=1e-5)
    assert biased["logprobs"]["token_logprobs"][0] < best


async def test_a_prompt_is_scored_alike_alone_and_on_the_way_to_an_answer(client: AppClient) -> None:
    prompt = " ".join(f"The {number}th ship left the harbour of Marseille." for number in range(24))
    asked = {"prompt": prompt, "echo": True, "logprobs": 2, "prompt_logprobs": 3, "seed": 1}
    alone = (await client.post(COMPLETIONS, {**asked, "max_tokens": 0})).json()["choices"][0]
    asked |= {"max_tokens": 2, "temperature": 0}
    both = [client.post(COMPLETIONS, {**asked, "prompt": prompt + end}) for end in (" One", " Two", "")]
    answers = [answer.json()["choices"][0] for answer in await asyncio.gather(*both)]
    expected = alone["logprobs"]["token_logprobs"][1:]
    for answer in answers:
        count = len(alone["logprobs"]["token_logprobs"])
        found = answer["logprobs"]["token_logprobs"][1:count]
        assert found == pytest.approx(expected, abs=1e-3)
        assert answer["text"].startswith(prompt)
    for row, logprob in zip(answers[2]["prompt_logprobs"][1:], expected, strict=True):
        actual = next(iter(row.values()))
        assert actual["logprob"] == pytest.approx(logprob, abs=1e-3)
        assert (actual["rank"] == 1) == (actual["logprob"] == max(entry["logprob"] for entry in row.values()))
    plain = (await client.post(COMPLETIONS, {"prompt": prompt, "max_tokens": 2, "temperature": 0})).json()
    assert answers[2]["text"] == prompt + plain["choices"][0]["text"]


async def test_a_last_message_is_continued(client: AppClient) -> None:
    messages = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is"},
    ]
    asked = {"messages": messages, "temperature": 0, "max_tokens": 4, "continue_final_message": True}
    answer = (await client.post(CHAT, {**asked, "add_generation_prompt": False})).json()
    assert answer["choices"][0]["message"]["content"] == " Paris."


@pytest.mark.parametrize("temperature", [0, 1])
async def test_a_request_that_leaves_no_token_fails_alone(client: AppClient, temperature: float) -> None:
    ends = (await client.post("/tokenize", {"prompt": "<|im_end|>", "add_special_tokens": False})).json()["tokens"]
    nothing = {"allowed_token_ids": ends, "min_tokens": 2, "temperature": temperature, "top_p": 0.9}
    answer = await client.post(COMPLETIONS, {**ONE_TO_FIVE, **nothing})
    assert (answer.status, answer.json()["error"]["param"]) == (400, "allowed_token_ids")
    assert (await said(client))["text"].startswith(" 6, 7, 8")


async def test_a_grammar_outweighs_min_tokens(client: AppClient) -> None:
    one = {"structured_outputs": {"choice": ["yes"]}, "min_tokens": 9}
    found = await said(client, **one, top_p=0.9, temperature=1)
    assert (found["text"], found["finish_reason"]) == ("yes", "stop")
