"""From what a model said to what is compared: a Score for each filter. Knows no metric and no HTTP."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway_evals.asking import Output
from gateway_evals.filters import PLAIN, build_chain
from gateway_evals.task import Sample, Task


@dataclass(frozen=True, slots=True)
class Score:
    """One sample's answer, ready for metrics. Everything in it can be written as JSON."""

    answers: Mapping[str, Any]
    """By name: each metric says which one it reads; "answer" is the usual one."""
    reference: Any
    """What is right: an index, or a list of texts."""
    extracted: bool = True
    """False: there was no answer to be found, which is counted apart from a wrong one."""
    filter: str = "none"


class Scorer(Protocol):
    """Made once for a task, by a factory that gets the Task; asked for each sample, many at a time."""

    async def __call__(self, sample: Sample, output: Output) -> list[Score]:
        """One Score for each filter, always the same filters in the same order."""
        ...


class ChoiceScorer:
    """The choice with the largest log-likelihood; the first among equals.

    `answer`: by the plain sum (lm-eval's acc); `answer_norm`: by the sum over the choice's characters (acc_norm);
    `answer_bytes`: over its bytes; `probabilities`: of the choices among themselves.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    async def __call__(self, sample: Sample, output: Output) -> list[Score]:
        totals = [choice.total for choice in output.choices]
        by_length = [total / len(text) for total, text in zip(totals, sample.choices, strict=True)]
        by_bytes = [total / len(text.encode()) for total, text in zip(totals, sample.choices, strict=True)]
        right = sample.golds[0]

        def best(values: Sequence[float]) -> int:
            place = values.index(max(values))
            return right if place in sample.golds else place

        answers = {
            "answer": best(totals),
            "answer_norm": best(by_length),
            "answer_bytes": best(by_bytes),
            "probabilities": shares(totals),
        }
        return [Score(answers, right)]


class ContinuationScorer:
    """`answer`: 1 where greedy decoding would have written the text, which is what is right; and its log-likelihood."""

    def __init__(self, task: Task) -> None:
        self._task = task

    async def __call__(self, sample: Sample, output: Output) -> list[Score]:
        (value,) = output.choices
        return [Score({"answer": int(value.is_greedy), "loglikelihood": value.total, "tokens": value.tokens}, 1)]


class DocumentScorer:
    """A text's log-likelihood, and what it is divided by: words (between blanks, as lm-eval counts them) and bytes."""

    def __init__(self, task: Task) -> None:
        self._task = task

    async def __call__(self, sample: Sample, output: Output) -> list[Score]:
        (value,) = output.choices
        text = sample.targets[0]
        answers = {
            "answer": value.total,
            "loglikelihood": value.total,
            "words": len(re.split(r"\s+", text)),
            "bytes": len(text.encode()),
            "tokens": value.tokens,
        }
        return [Score(answers, 0)]


class TextScorer:
    """The text after each of the task's filters; without filters, the text as it came. `answers`: where a task repeats
    and a filter leaves several."""

    def __init__(self, task: Task) -> None:
        spec = task.spec
        many = any(metric.metric == "pass_at_k" for metric in spec.metrics)
        plain = [] if many and spec.repeats > 1 else [PLAIN]
        chains = spec.filter_list or plain or [PLAIN.model_copy(update={"filter": []})]
        self._chains = [build_chain(chain, task.where, spec.repeats, many=many) for chain in chains]
        self._attempts = many

    async def __call__(self, sample: Sample, output: Output) -> list[Score]:
        scores: list[Score] = []
        for chain in self._chains:
            found = chain.extract_all(output.texts or (output.text,))
            answers: dict[str, Any] = {"answer": found[0][0]}
            if len(found) > 1:
                answers["answers"] = [text for text, _ in found]
            if self._attempts:
                answers["passed"] = [float(text in sample.targets) for text, _ in found]
            scores.append(Score(answers, list(sample.targets), any(good for _, good in found), chain.name))
        return scores


def shares(logarithms: Sequence[float]) -> list[float]:
    """Softmax: probabilities of things whose log-probabilities are known but for a constant."""
    largest = max(logarithms)
    weights = [math.exp(value - largest) for value in logarithms]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def default_scorer(output_type: str) -> str:
    return {"multiple_choice": "choice", "loglikelihood": "continuation", "loglikelihood_rolling": "document"}.get(
        output_type, "text"
    )
