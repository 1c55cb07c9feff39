"""Log-likelihoods of texts from /v1/completions with echo: of choices, of continuations, of whole documents.

Contexts and windows are cut into tokens as lm-eval does it, so that the numbers are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from gateway_evals.client import Answer, GatewayClient, ServedModel
from gateway_evals.errors import SampleFailed
from gateway_evals.task import Sample

WINDOW = 2046
"""Longest part of a document that is scored at once, in tokens: what lm-eval's API models use unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Loglikelihood:
    """Of one continuation given its context."""

    total: float
    """Sum of natural-log probabilities over the continuation's tokens."""
    is_greedy: bool
    """Whether greedy decoding would have written it."""
    tokens: int


@dataclass(frozen=True, slots=True)
class Scored:
    """What a request for log-likelihoods came to."""

    values: tuple[Loglikelihood, ...]
    answers: tuple[Answer, ...]
    request: Mapping[str, Any]


async def of_continuations(
    client: GatewayClient, model: ServedModel, context: str, continuations: Sequence[str], seed: int
) -> Scored:
    """Of each continuation given the context; all in one request. Raises SampleFailed."""
    if not context:
        start, wholes = 1, await _after_nothing(client, model, continuations)
    else:
        context, continuations = boundary(context, continuations)
        head, *wholes = await asyncio.gather(
            client.tokenize(model, context), *(client.tokenize(model, context + text) for text in continuations)
        )
        start = len(head)
    for text, whole in zip(continuations, wholes, strict=True):
        if len(whole) <= start:
            raise SampleFailed(f"choice {text!r} adds no token to its context")
    if start == 0:
        raise SampleFailed("the context has no token: nothing to give the choices' likelihood on")
    answer, request, rows = await _echoed(client, model, wholes, seed)
    values = tuple(_loglikelihood(row, start, len(whole)) for row, whole in zip(rows, wholes, strict=True))
    return Scored(values, (answer,), request)


async def of_document(client: GatewayClient, model: ServedModel, text: str, seed: int) -> Scored:
    """Of a whole text, window by window, each token once; the first stands after the tokenizer's BOS (or EOS) token.

    Raises SampleFailed.
    """
    first, tokens = await asyncio.gather(client.prefix_token(model), client.tokenize(model, text))
    if not tokens:
        raise SampleFailed("the text has no token")
    longest = WINDOW if model.max_model_len is None else min(WINDOW, model.max_model_len - 2)
    values: list[Loglikelihood] = []
    answers: list[Answer] = []
    request: Mapping[str, Any] = {}
    for context, part in windows(tokens, first, longest):
        answer, request, rows = await _echoed(client, model, [context + part], seed)
        values.append(_loglikelihood(rows[0], len(context), len(context) + len(part)))
        answers.append(answer)
    total = Loglikelihood(
        sum(value.total for value in values),
        all(value.is_greedy for value in values),
        sum(value.tokens for value in values),
    )
    return Scored((total,), tuple(answers), request)


def windows(tokens: Sequence[int], first: int, longest: int) -> Iterator[tuple[list[int], list[int]]]:
    """(context, part) pairs: parts hold every token once; the last one's context fills up what its part leaves.

    Both together have at most `longest` + 1 tokens.
    """
    part = list(tokens[:longest])
    yield [first], part
    done = len(part)
    while done < len(tokens):
        end = min(done + longest, len(tokens))
        yield list(tokens[end - longest - 1 : done]), list(tokens[done:end])
        done = end


def boundary(context: str, continuations: Sequence[str]) -> tuple[str, list[str]]:
    """Move the context's trailing blanks to the continuations, as lm-eval does: tokenizers join one to the next word.

    Context and continuation are then encoded whole; the context's own token count says where the latter starts.
    """
    kept = context.rstrip()
    blanks = context[len(kept) :]
    return kept, [blanks + continuation for continuation in continuations]


async def chat_context(client: GatewayClient, model: ServedModel, sample: Sample) -> str:
    """The sample's chat as the model's own template writes it, up to where the answer begins. Raises SampleFailed."""
    begun = sample.messages[-1]["role"] == "assistant"
    payload = {
        "model": model.name,
        "messages": list(sample.messages),
        "add_special_tokens": False,
        "add_generation_prompt": not begun,
    }
    told = await client.post(f"{client.root}/tokenize", payload)
    back = await client.post(f"{client.root}/detokenize", {"model": model.name, "tokens": told.body.get("tokens")})
    text = back.body.get("prompt")
    if not isinstance(text, str) or not text:
        raise SampleFailed(f"/detokenize of {model.name} answered without `prompt`")
    if begun:
        # What a template puts after a message would end the answer before it began.
        prefix = sample.messages[-1]["content"].rstrip()
        place = text.rfind(prefix)
        if place < 0:
            raise SampleFailed("the chat template does not write the beginning of the answer as it stands")
        text = text[: place + len(prefix)]
    return text


async def _after_nothing(client: GatewayClient, model: ServedModel, texts: Sequence[str]) -> list[list[int]]:
    """Without a context the tokenizer's BOS (or EOS) token stands in for it, once."""
    first = await client.prefix_token(model)
    parts = await asyncio.gather(*(client.tokenize(model, text) for text in texts))
    return [part if part[:1] == [first] else [first, *part] for part in parts]


async def _echoed(
    client: GatewayClient, model: ServedModel, wholes: Sequence[Sequence[int]], seed: int
) -> tuple[Answer, dict[str, Any], list[dict[str, Any]]]:
    request: dict[str, Any] = {"max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0, "seed": seed}
    answer = await client.post(f"{model.url}/completions", {"model": model.name, "prompt": wholes, **request})
    return answer, request, choices_of(answer, len(wholes))


def choices_of(answer: Answer, expected: int) -> list[dict[str, Any]]:
    """By `index`. Raises SampleFailed where there are more or fewer."""
    rows: Any = answer.body.get("choices")
    if not isinstance(rows, list) or len(cast("list[Any]", rows)) != expected:
        raise SampleFailed(f"expected {expected} choices in the answer, found {rows!r:.200}")
    found = cast("list[dict[str, Any]]", rows)
    return sorted(found, key=lambda row: int(row.get("index", 0)))


def _loglikelihood(row: Mapping[str, Any], start: int, end: int) -> Loglikelihood:
    """Over the tokens from `start` to `end`; what a backend generated after them does not count."""
    told: Any = row.get("logprobs")
    if not isinstance(told, dict):
        raise SampleFailed("the backend answered without logprobs: it cannot score choices")
    logprobs = cast("dict[str, Any]", told)
    values: Any = logprobs.get("token_logprobs")
    tops: Any = logprobs.get("top_logprobs")
    if not isinstance(values, list) or len(cast("list[Any]", values)) < end:
        raise SampleFailed(f"expected {end} token_logprobs (echo), found fewer: the backend cannot echo a prompt")
    part = cast("list[Any]", values)[start:end]
    if any(not isinstance(value, int | float) for value in part):
        raise SampleFailed("a token_logprob of the continuation is missing")
    best = cast("list[Any]", tops)[start:end] if isinstance(tops, list) else []
    greedy = len(best) == len(part) and all(
        top and value >= max(cast("dict[str, float]", top).values()) for value, top in zip(part, best, strict=True)
    )
    return Loglikelihood(float(sum(part)), greedy, len(part))
