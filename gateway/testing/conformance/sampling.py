"""How tokens are chosen: each field is asked for where its effect can be told from its absence."""

from __future__ import annotations

from collections import Counter

from gateway.testing.conformance.chat import CHAT, QUESTION
from gateway.testing.conformance.check import Group, NotApplicable, expect, refuses, same
from gateway.testing.conformance.completions import COMPLETIONS, PROMPT
from gateway.testing.served import Served, chat_body

GROUP = Group("sampling")
LOOP = "1 2 1 2 1 2 1 2 1 2 1 2"
"""What a model goes on with is more of the same."""


@GROUP.check("seed reproducible", "seed")
async def seed(served: Served) -> None:
    async def text(number: int) -> str:
        body = await served.complete("Once upon a time", max_tokens=6, temperature=1.0, top_p=0.9, seed=number)
        return body["choices"][0]["text"]

    first = await text(7)
    same(await text(7), first, "the same seed again")
    hot = {await text(number) for number in (8, 9, 10)}
    greedy = (await served.complete("Once upon a time", max_tokens=6))["choices"][0]["text"]
    # An engine that samples at all differs somewhere.
    expect(len({first, *hot}) > 1 or first == greedy, "four seeds give one text that is not the greedy one")


@GROUP.check("top_k, top_p", "top_[kp]")
async def top_k_top_p(served: Served) -> None:
    greedy = (await served.complete(PROMPT, max_tokens=8))["choices"][0]["text"]
    for fields in ({"top_k": 1}, {"top_p": 1e-9}):
        narrow = await served.complete(PROMPT, max_tokens=8, temperature=1.5, seed=5, **fields)
        same(narrow["choices"][0]["text"], greedy, f"{fields} at temperature 1.5")
    await refuses(served, COMPLETIONS, 400, "top_p", prompt=PROMPT, top_p=1.5)


@GROUP.check("min_p")
async def min_p(served: Served) -> None:
    greedy = (await served.complete(PROMPT, max_tokens=8))["choices"][0]["text"]
    # Nothing but the likeliest has the whole of its probability.
    narrow = await served.complete(PROMPT, max_tokens=8, temperature=1.5, seed=5, min_p=1.0)
    same(narrow["choices"][0]["text"], greedy, "`min_p: 1` at temperature 1.5")
    await refuses(served, COMPLETIONS, 400, "min_p", prompt=PROMPT, min_p=1.5)


@GROUP.check("logit_bias")
async def logit_bias(served: Served) -> None:
    token = (await served.ids("x"))[-1]
    only = await served.complete(PROMPT, max_tokens=4, logit_bias={str(token): 100}, ignore_eos=True)
    text = (await served.post("/detokenize", tokens=[token] * 4))["prompt"]
    same(only["choices"][0]["text"].strip(), text.strip(), f"a bias of 100 to token {token}")
    first = (await served.complete(PROMPT, max_tokens=1, logprobs=0))["choices"][0]["text"]
    banned = (await served.ids(first))[0]
    other = (await served.complete(PROMPT, max_tokens=1, logit_bias={str(banned): -100}))["choices"][0]["text"]
    expect(other != first, f"a bias of -100 did not keep {first!r} away")
    body = await served.chat(QUESTION, max_tokens=3, logit_bias={str(token): 100}, ignore_eos=True)
    expect(set(body["choices"][0]["message"]["content"].strip()) <= set(text), "chat ignores `logit_bias`")
    await refuses(served, COMPLETIONS, 400, "logit_bias", prompt=PROMPT, logit_bias={"not a token": 1})
    await refuses(served, COMPLETIONS, 400, "logit_bias", prompt=PROMPT, logit_bias={"999999999": 1})


@GROUP.check("penalties", "(presence|frequency|repetition)_penalty")
async def penalties(served: Served) -> None:
    async def tokens(**fields: float) -> list[str]:
        body = await served.complete(LOOP, max_tokens=12, ignore_eos=True, logprobs=0, **fields)
        return body["choices"][0]["logprobs"]["tokens"]

    plain = await tokens()
    commonest = max(Counter(plain).values())
    for name, value in (("frequency_penalty", 2.0), ("repetition_penalty", 2.0)):
        fewest = max(Counter(await tokens(**{name: value})).values())
        expect(fewest < commonest, f"`{name}: {value}`: a token comes {fewest} times, {commonest} times without it")
    distinct = len(set(await tokens(presence_penalty=2.0)))
    expect(distinct >= len(set(plain)), "`presence_penalty: 2` makes the text poorer")
    same(await tokens(frequency_penalty=0, presence_penalty=0, repetition_penalty=1), plain, "penalties that are none")
    for name, value in (("frequency_penalty", 2.5), ("presence_penalty", -2.5), ("repetition_penalty", -1)):
        await refuses(served, COMPLETIONS, 400, name, prompt=LOOP, **{name: value})


@GROUP.check("min_tokens")
async def min_tokens(served: Served) -> None:
    question, made = await _short(served)
    body = await served.chat(question, max_tokens=made + 12, min_tokens=made + 4)
    longer = body["usage"]["completion_tokens"]
    expect(longer >= made + 4, f"{longer} tokens where at least {made + 4} were asked for")
    wrong = chat_body("a", {"max_tokens": 2, "min_tokens": 3})
    await refuses(served, CHAT, 400, "min_tokens", **wrong)


@GROUP.check("ignore_eos")
async def ignore_eos(served: Served) -> None:
    question, made = await _short(served)
    body = await served.chat(question, max_tokens=made + 6, ignore_eos=True)
    same(body["usage"]["completion_tokens"], made + 6, "tokens made")
    same(body["choices"][0]["finish_reason"], "length", "`finish_reason`")


async def _short(served: Served) -> tuple[str, int]:
    """A question whose answer comes to its own end, and the tokens that this takes."""
    for question in (QUESTION, "Say yes.", "Hi"):
        body = await served.chat(question, max_tokens=40)
        if body["choices"][0]["finish_reason"] == "stop":
            return question, body["usage"]["completion_tokens"]
    raise NotApplicable("no answer of this model ends within 40 tokens")


@GROUP.check("best_of refused", "best_of")
async def best_of(served: Served) -> None:
    # Nobody serves it any more; an answer that ignored it would be something else than was asked for.
    await refuses(served, COMPLETIONS, 400, "best_of", prompt=PROMPT, max_tokens=1, best_of=3)
