"""From a sample to what a model said: generation, conversation, log-likelihoods. Judges nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from gateway_evals.client import Answer, GatewayClient, ServedModel
from gateway_evals.errors import SampleFailed
from gateway_evals.likelihood import Loglikelihood, Scored, chat_context, choices_of, of_continuations, of_document
from gateway_evals.spec import TaskSpec
from gateway_evals.task import Sample

__all__ = ["Loglikelihood", "Output", "ask"]


@dataclass(frozen=True, slots=True)
class Output:
    """What a model said to one sample."""

    text: str = ""
    """For generate_until: the (first) answer; of a conversation the last one."""
    choices: tuple[Loglikelihood, ...] = ()
    """For multiple_choice, in the sample's order; for log-likelihoods the one."""
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What was asked, but for the prompt and the model."""
    finish_reason: str = ""
    latency_s: float = 0.0
    attempts: int = 1
    target: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    texts: tuple[str, ...] = ()
    """All answers, where the task repeats; else the one."""
    said: tuple[str, ...] = ()
    """In a conversation of several turns, every answer of it."""
    ttft_s: float | None = None
    """Until the first token (of the first answer), where it was streamed."""
    overhead_ms: float | None = None
    """The gateway's own share, where it tells."""
    cached: bool = False
    """From the cache: the times are those of when it was asked."""


async def ask(client: GatewayClient, model: ServedModel, spec: TaskSpec, sample: Sample, seed: int) -> Output:
    """Raises SampleFailed where this sample gets no usable answer, EvaluationError where none will."""
    try:
        if spec.output_type == "generate_until":
            return await _generate(client, model, spec, sample, seed)
        return _scored(await _score(client, model, spec, sample, seed))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # Foreign servers answer in shapes of their own; that is this sample's failure, not the run's.
        raise SampleFailed(f"the answer has an unexpected shape ({type(error).__name__}: {error})") from error


async def _score(client: GatewayClient, model: ServedModel, spec: TaskSpec, sample: Sample, seed: int) -> Scored:
    if spec.output_type == "loglikelihood_rolling":
        return await of_document(client, model, sample.targets[0], seed)
    context = await chat_context(client, model, sample) if sample.messages else sample.prompt
    if spec.output_type == "loglikelihood":
        return await of_continuations(client, model, context, [sample.targets[0]], seed)
    delimiter = choice_delimiter(spec)
    return await of_continuations(client, model, context, [delimiter + choice for choice in sample.choices], seed)


def choice_delimiter(spec: TaskSpec) -> str:
    """What stands before each choice: in a chat nothing, for the template has ended a line (as in lm-eval)."""
    begun = spec.gen_prefix is not None and not spec.gen_prefix[-1:].isspace()
    return "" if spec.chats and not begun else spec.target_delimiter


async def _generate(client: GatewayClient, model: ServedModel, spec: TaskSpec, sample: Sample, seed: int) -> Output:
    """As often as the task repeats. What is greedy is the same every time, and asked once."""
    asked = spec.repeats if spec.generation_kwargs.samples else 1
    answers: list[Answer] = []
    texts: list[str] = []
    said: list[str] = []
    request: dict[str, Any] = {}
    reason = ""
    for repeat in range(asked):
        request = _request(spec, seed + repeat)
        said, found, reason = await _conversation(client, model, spec, sample, request)
        answers += found
        texts.append(said[-1])
    texts *= spec.repeats // asked
    return _output(
        answers,
        text=texts[0],
        texts=tuple(texts),
        said=tuple(said) if sample.turns else (),
        request={**request, "seed": seed},
        finish_reason=reason,
    )


def _request(spec: TaskSpec, seed: int) -> dict[str, Any]:
    settings = spec.generation_kwargs
    temperature = settings.temperature if settings.samples else 0
    return {
        "max_tokens": settings.max_gen_toks,
        "temperature": temperature,
        "stop": spec.stops,
        "seed": seed,
        **settings.sampling,
    }


async def _conversation(
    client: GatewayClient, model: ServedModel, spec: TaskSpec, sample: Sample, request: Mapping[str, Any]
) -> tuple[list[str], list[Answer], str]:
    """The model's answers, turn by turn; each is part of what is asked next."""
    if not sample.messages:
        # As lm-eval: the prompt as it stands, without a BOS token that nobody wrote.
        plain = {"prompt": sample.prompt, **({"add_special_tokens": False} if model.facts else {})}
        answer = await client.post(f"{model.url}/completions", {"model": model.name, **plain, **request})
        text, reason = _text(answer, chat=False, stops=spec.stops)
        return [text], [answer], reason
    messages = list(sample.messages)
    said: list[str] = []
    answers: list[Answer] = []
    reason = ""
    for turn in (None, *sample.turns):
        if turn is not None:
            messages += [{"role": "assistant", "content": said[-1]}, {"role": "user", "content": turn}]
        begun = (
            {"add_generation_prompt": False, "continue_final_message": True}
            if messages[-1]["role"] == "assistant"
            else {}
        )
        payload = {"model": model.name, "messages": messages, **begun, **request}
        answer = await client.post(f"{model.url}/chat/completions", payload)
        text, reason = _text(answer, chat=True, stops=spec.stops)
        said.append(text)
        answers.append(answer)
    return said, answers, reason


def _text(answer: Answer, *, chat: bool, stops: Sequence[str]) -> tuple[str, str]:
    """An answer's text and why it ended."""
    choice = choices_of(answer, 1)[0]
    text = choice.get("message", {}).get("content") if chat else choice.get("text")
    if text is not None and not isinstance(text, str):
        raise SampleFailed(f"the answer's text is {type(text).__name__}, expected a string")
    return _cut(text or "", stops), str(choice.get("finish_reason") or "")


def _scored(scored: Scored) -> Output:
    reason = str(choices_of(scored.answers[-1], len(scored.values))[0].get("finish_reason") or "")
    return _output(scored.answers, choices=scored.values, request=scored.request, finish_reason=reason)


def _output(answers: Sequence[Answer], **fields: Any) -> Output:
    """What all answers to one sample cost together."""
    usages = [_usage(answer) for answer in answers]
    return Output(
        latency_s=sum(answer.latency_s for answer in answers),
        attempts=sum(answer.attempts for answer in answers) - len(answers) + 1,
        target=answers[-1].target,
        prompt_tokens=sum(int(usage.get("prompt_tokens") or 0) for usage in usages),
        completion_tokens=sum(int(usage.get("completion_tokens") or 0) for usage in usages),
        ttft_s=answers[0].ttft_s,
        overhead_ms=answers[0].overhead_ms,
        cached=all(answer.cached for answer in answers),
        **fields,
    )


def _usage(answer: Answer) -> dict[str, Any]:
    told: Any = answer.body.get("usage")
    return cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def _cut(text: str, stops: Sequence[str]) -> str:
    """A backend that ignored `stop` must score as one that honoured it: cut at the first stop text."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text
