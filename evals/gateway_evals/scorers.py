"""From what a model said to what is compared: a Score for each filter. Knows no metric and no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway_evals.asking import Output
from gateway_evals.filters import Chain, build_chain
from gateway_evals.task import Sample, Task


@dataclass(frozen=True, slots=True)
class Score:
    """One sample's answer, ready for metrics."""

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

    `answer`: by the plain sum (lm-eval's acc); `answer_norm`: by the sum over the choice's characters (acc_norm).
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    async def __call__(self, sample: Sample, output: Output) -> list[Score]:
        totals = [choice.total for choice in output.choices]
        by_length = [total / len(text) for total, text in zip(totals, sample.choices, strict=True)]
        answers = {"answer": totals.index(max(totals)), "answer_norm": by_length.index(max(by_length))}
        return [Score(answers, sample.gold)]


class TextScorer:
    """The text after each of the task's filters; without filters, the text as it came."""

    def __init__(self, task: Task) -> None:
        self._chains = [build_chain(spec, task.where) for spec in task.spec.filter_list] or [Chain("none", [])]

    async def __call__(self, sample: Sample, output: Output) -> list[Score]:
        scores: list[Score] = []
        for chain in self._chains:
            answer, extracted = chain.extract(output.text)
            scores.append(Score({"answer": answer}, list(sample.targets), extracted, chain.name))
        return scores


def default_scorer(output_type: str) -> str:
    return "choice" if output_type == "multiple_choice" else "text"
