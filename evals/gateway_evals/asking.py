"""From a sample to what a model said: generation, and log-likelihood of choices. Judges nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from gateway_evals.client import Answer, GatewayClient, ServedModel
from gateway_evals.errors import SampleFailed
from gateway_evals.suite import TaskSpec
from gateway_evals.task import Sample


@dataclass(frozen=True, slots=True)
class Loglikelihood:
    """Of one continuation given its context."""

    total: float
    """Sum of natural-log probabilities over the continuation's tokens."""
    is_greedy: bool
    """Whether greedy decoding would have written it."""
    tokens: int


@dataclass(frozen=True, slots=True)
class Output:
    """What a model said to one sample."""

    text: str = ""
    """For generate_until."""
    choices: tuple[Loglikelihood, ...] = ()
    """For multiple_choice, in the sample's order."""
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What was asked, but for the prompt and the model."""
    finish_reason: str = ""
    latency_s: float = 0.0
    attempts: int = 1
    target: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


async def ask(client: GatewayClient, model: ServedModel, spec: TaskSpec, sample: Sample, seed: int) -> Output:
    """Raises SampleFailed where this sample gets no usable answer, EvaluationError where none will."""
    how = _choose if spec.output_type == "multiple_choice" else _generate
    try:
        return await how(client, model, spec, sample, seed)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Foreign servers answer in shapes of their own; that is this sample's failure, not the run's.
        raise SampleFailed(f"the answer has an unexpected shape ({type(error).__name__}: {error})") from error


async def _generate(client: GatewayClient, model: ServedModel, spec: TaskSpec, sample: Sample, seed: int) -> Output:
    settings = spec.generation_kwargs
    request: dict[str, Any] = {
        "max_tokens": settings.max_gen_toks,
        "temperature": settings.temperature if settings.do_sample else 0,
        "stop": spec.stops,
        "seed": seed,
    }
    if settings.do_sample:
        request |= {key: value for key in ("top_p", "top_k") if (value := getattr(settings, key)) is not None}
    if spec.apply_chat_template:
        asked = {"messages": [{"role": "user", "content": sample.prompt}]}
        answer = await client.post(f"{model.url}/chat/completions", {"model": model.name, **asked, **request})
    else:
        answer = await client.post(
            f"{model.url}/completions", {"model": model.name, "prompt": sample.prompt, **request}
        )
    choice = _choices(answer, 1)[0]
    text = choice.get("message", {}).get("content") if spec.apply_chat_template else choice.get("text")
    if text is not None and not isinstance(text, str):
        raise SampleFailed(f"the answer's text is {type(text).__name__}, expected a string")
    return _output(answer, text=_cut(text or "", spec.stops), request=request, choice=choice)


async def _choose(client: GatewayClient, model: ServedModel, spec: TaskSpec, sample: Sample, seed: int) -> Output:
    context, continuations = boundary(sample.prompt, [spec.target_delimiter + choice for choice in sample.choices])
    context_ids, *wholes = await asyncio.gather(
        client.tokenize(model, context), *(client.tokenize(model, context + text) for text in continuations)
    )
    start = len(context_ids)
    for choice, whole in zip(sample.choices, wholes, strict=True):
        if len(whole) <= start:
            raise SampleFailed(f"choice {choice!r} adds no token to its context")
    if start == 0:
        raise SampleFailed("the context has no token: nothing to give the choices' likelihood on")
    request: dict[str, Any] = {"max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0, "seed": seed}
    answer = await client.post(f"{model.url}/completions", {"model": model.name, "prompt": wholes, **request})
    rows = _choices(answer, len(wholes))
    measured = [_loglikelihood(row, start, len(whole)) for row, whole in zip(rows, wholes, strict=True)]
    return _output(answer, choices=tuple(measured), request=request, choice=rows[0])


def boundary(context: str, continuations: Sequence[str]) -> tuple[str, list[str]]:
    """Move the context's trailing blanks to the continuations, as lm-eval does: tokenizers join one to the next word.

    Context and continuation are then encoded whole; the context's own token count says where the latter starts.
    """
    kept = context.rstrip()
    blanks = context[len(kept) :]
    return kept, [blanks + continuation for continuation in continuations]


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


def _choices(answer: Answer, expected: int) -> list[dict[str, Any]]:
    """By `index`."""
    rows: Any = answer.body.get("choices")
    if not isinstance(rows, list) or len(cast("list[Any]", rows)) != expected:
        raise SampleFailed(f"expected {expected} choices in the answer, found {rows!r:.200}")
    found = cast("list[dict[str, Any]]", rows)
    return sorted(found, key=lambda row: int(row.get("index", 0)))


def _output(
    answer: Answer,
    *,
    request: Mapping[str, Any],
    choice: Mapping[str, Any],
    text: str = "",
    choices: tuple[Loglikelihood, ...] = (),
) -> Output:
    told: Any = answer.body.get("usage")
    usage = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    return Output(
        text=text,
        choices=choices,
        request=request,
        finish_reason=str(choice.get("finish_reason") or ""),
        latency_s=answer.latency_s,
        attempts=answer.attempts,
        target=answer.target,
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )


def _cut(text: str, stops: Sequence[str]) -> str:
    """A backend that ignored `stop` must score as one that honoured it: cut at the first stop text."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text
