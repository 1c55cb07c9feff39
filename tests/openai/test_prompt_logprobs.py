"""`prompt_logprobs`, as vLLM shows them, and messages that are to be continued."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.engine import Delta, TokenLogprob
from gateway.openai.logprobs import LEAST

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
DONE = Delta([65], finish_reason="length")
SCORES = (None, TokenLogprob(-2.0, ((99, -0.5), (100, -1.0)), 7), TokenLogprob(float("-inf"), ((98, -0.1),), 258))


async def test_the_actual_token_comes_first_with_its_rank(dictate: Any) -> None:
    _, client = dictate(DONE, scores=SCORES)
    answer = await client.post(COMPLETIONS, {"prompt": [97, 98, 99], "max_tokens": 1, "prompt_logprobs": 2})
    rows = answer.json()["choices"][0]["prompt_logprobs"]
    assert rows[0] is None
    assert list(rows[1].items()) == [
        ("98", {"logprob": -2.0, "rank": 7, "decoded_token": "b"}),
        ("99", {"logprob": -0.5, "rank": 1, "decoded_token": "c"}),
        ("100", {"logprob": -1.0, "rank": 2, "decoded_token": "d"}),
    ]
    assert rows[2]["99"] == {"logprob": LEAST, "rank": 258, "decoded_token": "c"}


async def test_none_of_the_others_where_none_are_asked(dictate: Any) -> None:
    _, client = dictate(DONE, scores=SCORES)
    answer = await client.post(COMPLETIONS, {"prompt": [97, 98, 99], "max_tokens": 1, "prompt_logprobs": 0})
    assert [row and list(row) for row in answer.json()["choices"][0]["prompt_logprobs"]] == [None, ["98"], ["99"]]


async def test_beside_echo_each_has_its_own_number_of_alternatives(dictate: Any) -> None:
    _, client = dictate(DONE, scores=SCORES)
    asked = {"prompt": [97, 98, 99], "max_tokens": 0, "echo": True, "logprobs": 1, "prompt_logprobs": 2}
    choice = (await client.post(COMPLETIONS, asked)).json()["choices"][0]
    assert choice["logprobs"]["top_logprobs"][1] == {"c": -0.5, "b": -2.0}
    assert len(choice["prompt_logprobs"][1]) == 3


@pytest.mark.parametrize(
    ("path", "fields"),
    [(COMPLETIONS, {"prompt": "x", "prompt_logprobs": 21}), (COMPLETIONS, {"prompt": "x", "prompt_logprobs": -1}),
     (CHAT, {"messages": [{"role": "user", "content": "x"}], "prompt_logprobs": 1, "stream": True})],
)  # fmt: skip
async def test_what_cannot_be_is_named(dictate: Any, path: str, fields: dict[str, Any]) -> None:
    _, client = dictate(DONE)
    answer = await client.post(path, fields)
    assert answer.status == 400
    assert answer.json()["error"]["param"] == "prompt_logprobs"


async def test_a_generation_prompt_and_a_message_to_continue_exclude_each_other(dictate: Any) -> None:
    _, client = dictate(DONE)
    asked = {
        "messages": [{"role": "assistant", "content": "On"}],
        "continue_final_message": True,
        "add_generation_prompt": True,
    }
    answer = await client.post(CHAT, asked)
    assert answer.status == 400
    assert answer.json()["error"]["param"] == "continue_final_message"
