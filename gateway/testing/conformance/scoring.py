"""Log-probabilities: of what was made, and of the prompt, as evaluation tools read them."""

from __future__ import annotations

import math
from typing import Any

from gateway.testing.conformance.chat import QUESTION
from gateway.testing.conformance.check import Group, expect, same
from gateway.testing.conformance.completions import PROMPT
from gateway.testing.served import Served

GROUP = Group("scoring")
TEXT = "The capital of France is Paris, and that of Italy is Rome."
NAMES = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


@GROUP.check("logprobs")
async def logprobs(served: Served) -> None:
    body = await served.complete(PROMPT, max_tokens=5, logprobs=3)
    found = body["choices"][0]["logprobs"]
    for name in NAMES:
        same(len(found[name]), body["usage"]["completion_tokens"], f"length of `{name}`")
    for token, logprob, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
        _is_logprob(logprob)
        same(top[token], logprob, f"{token!r} in `top_logprobs`")
        same(max(top.values()), logprob, "the greedy token's rank")
        expect(1 <= len(top) <= 4, f"{len(top)} alternatives where 3 were asked for")
    plain = (await served.complete(PROMPT, max_tokens=5))["choices"][0]
    same(plain.get("logprobs"), None, "`logprobs` that were not asked for")
    same(plain["text"], body["choices"][0]["text"], "the text beside its scores")


@GROUP.check("chat logprobs", "logprobs")
async def chat_logprobs(served: Served) -> None:
    body = await served.chat(QUESTION, max_tokens=5, logprobs=True, top_logprobs=2)
    content = body["choices"][0]["logprobs"]["content"]
    expect(len(content) in {body["usage"]["completion_tokens"], body["usage"]["completion_tokens"] - 1}, "their number")
    for entry in content:
        _is_logprob(entry["logprob"])
        same(len(entry["top_logprobs"]), 2, "alternatives")
        same(entry["top_logprobs"][0]["logprob"], entry["logprob"], "the greedy token's rank")
        same(bytes(entry["bytes"]).decode(errors="replace"), entry["token"], "`bytes` beside `token`")
    text = b"".join(bytes(entry["bytes"]) for entry in content).decode(errors="replace")
    expect(text.startswith(body["choices"][0]["message"]["content"]), f"the tokens spell {text!r}")


@GROUP.check("echo logprobs", "echo|logprobs")
async def echo_logprobs(served: Served) -> None:
    ids = await served.ids(TEXT)
    shorter = ids[: len(ids) // 2]
    asked: dict[str, Any] = {"logprobs": 1, "echo": True, "seed": 1234}
    body = await served.complete([ids, shorter], max_tokens=1, **asked)
    same([choice["index"] for choice in body["choices"]], [0, 1], "indices")
    for choice, prompt in zip(body["choices"], (ids, shorter), strict=True):
        found = choice["logprobs"]
        for name in NAMES:
            same(len(found[name]), len(prompt) + 1, f"length of `{name}`: one entry a prompt token, one that was made")
        same(found["token_logprobs"][0], None, "the first token's score")
        same(found["top_logprobs"][0], None, "the first token's alternatives")
        for token, logprob, top in zip(
            found["tokens"][1:], found["token_logprobs"][1:], found["top_logprobs"][1:], strict=True
        ):
            _is_logprob(logprob)
            same(top[token], logprob, f"{token!r} in `top_logprobs`, float by float")
    longer, begun = (choice["logprobs"]["token_logprobs"] for choice in body["choices"])
    for position in range(1, len(shorter)):
        _near(longer[position], begun[position], f"token {position} of a prompt and of its beginning")
    # What follows half of the prompt was generated once and scored once: the same distribution gives the same number.
    made = body["choices"][1]["logprobs"]
    if made["tokens"][-1] == body["choices"][0]["logprobs"]["tokens"][len(shorter)]:
        _near(longer[len(shorter)], made["token_logprobs"][-1], "the same token, generated and scored")
    nothing = (await served.complete(TEXT, max_tokens=0, **asked))["choices"][0]
    same(nothing["text"], TEXT, "the text with `max_tokens: 0`")
    same(nothing["logprobs"]["token_logprobs"][0], None, "the first token's score with `max_tokens: 0`")
    expect(None not in nothing["logprobs"]["token_logprobs"][1:], "a score is missing")


@GROUP.check("prompt_logprobs")
async def prompt_logprobs(served: Served) -> None:
    ids = await served.ids(TEXT)
    body = await served.complete(ids, max_tokens=1, prompt_logprobs=2)
    scores = body["choices"][0]["prompt_logprobs"]
    same(len(scores), len(ids), "entries")
    same(scores[0], None, "the first entry")
    for token, entry in zip(ids[1:], scores[1:], strict=True):
        same(next(iter(entry)), str(token), "the first key: the prompt's own token")
        expect(2 <= len(entry) <= 3, f"{len(entry)} tokens where 2 and the prompt's own were asked for")
        for one in entry.values():
            _is_logprob(one["logprob"])
            expect(one["rank"] >= 1, f"a rank of {one['rank']}")
            expect(isinstance(one["decoded_token"], str), "`decoded_token` is no text")
        own = entry[str(token)]
        expect(own["rank"] > 1 or own["logprob"] == max(one["logprob"] for one in entry.values()), "rank 1 is not best")
    echoed = await served.complete(ids, max_tokens=1, echo=True, logprobs=1)
    for position, value in enumerate(echoed["choices"][0]["logprobs"]["token_logprobs"][1 : len(ids)], 1):
        _near(scores[position][str(ids[position])]["logprob"], value, f"token {position} beside `echo`")
    chat = await served.chat(QUESTION, max_tokens=1, prompt_logprobs=0)
    same(len(chat["prompt_logprobs"]), chat["usage"]["prompt_tokens"], "entries at a chat's top level")


def _is_logprob(value: Any) -> None:
    expect(isinstance(value, float | int) and math.isfinite(value) and value <= 1e-6, f"{value!r} is no logprob")


def _near(found: float, expected: float, what: str) -> None:
    expect(math.isclose(found, expected, rel_tol=0.02, abs_tol=0.02), f"{what}: {found} and {expected}")
