"""From a task's scores to its figures: each metric over each filter, with a standard error. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from gateway_evals.errors import EvaluationError
from gateway_evals.offers import Metric
from gateway_evals.runner import TaskRun
from gateway_evals.scorers import Score
from gateway_evals.statistics import bootstrap_error, error_of_mean


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of one task."""

    metric: str
    filter: str
    value: float | None
    """None where no sample was answered."""
    stderr: float | None
    """None where there are fewer than two samples."""
    higher_is_better: bool = True

    @property
    def key(self) -> str:
        """lm-eval's: `acc,none`."""
        return f"{self.metric},{self.filter}"

    @property
    def stderr_key(self) -> str:
        return f"{self.metric}_stderr,{self.filter}"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task came to."""

    run: TaskRun
    figures: list[Figure]
    each: Mapping[str, Mapping[int, Mapping[str, float]]]
    """Filter to row to metric to value, for metrics that have one for each sample."""
    unanswered: Mapping[str, int] = field(default_factory=dict[str, int])
    """Filter to the number of samples in whose text no answer was found. They count as wrong."""

    @property
    def answered(self) -> int:
        return len(self.run.scores)

    @property
    def failed(self) -> int:
        return len(self.run.failures)


def measure(run: TaskRun, seed: int) -> TaskResult:
    """Raises EvaluationError where a metric cannot read the task's answers."""
    figures: list[Figure] = []
    each: dict[str, dict[int, dict[str, float]]] = {}
    unanswered: dict[str, int] = {}
    filters = run.by_filter() or {"none": []}
    for name, scored in filters.items():
        scores = [score for _, score in scored]
        unanswered[name] = sum(not score.extracted for score in scores)
        each[name] = {doc_id: {} for doc_id, _ in scored}
        # A row that names no source is one of its own.
        groups = [run.groups.get(doc_id) or f"row {doc_id}" for doc_id, _ in scored] if run.groups else None
        for spec in run.task.spec.metrics:
            metric = run.judge.metrics[spec.metric]
            told = spec.higher_is_better
            higher = bool(getattr(metric, "higher_is_better", True)) if told is None else told
            if not scores:
                figures.append(Figure(spec.metric, name, None, None, higher))
                continue
            try:
                found, values = _apply(metric, scores, spec.settings, seed, groups)
            except (KeyError, TypeError, ValueError) as error:
                raise EvaluationError(
                    f"{run.task.where}: metric {spec.metric!r} cannot read this task's answers: "
                    + (f"its scorer gives no {error}" if isinstance(error, KeyError) else str(error))
                ) from error
            figures += [Figure(key, name, value, error, higher) for key, value, error in found]
            for (doc_id, _), value in zip(scored, values, strict=bool(values)):
                each[name][doc_id][spec.metric] = value
    return TaskResult(run, figures, each, unanswered)


def _apply(
    metric: Metric, scores: Sequence[Score], settings: Mapping[str, Any], seed: int, groups: Sequence[str] | None
) -> tuple[list[tuple[str, float, float | None]], list[float]]:
    """(key, value, standard error) of all the metric gives, and its value for each sample or nothing."""
    reads = str(getattr(metric, "reads", "answer"))
    predictions = [score.answers[reads] for score in scores]
    references = _references(_against(metric, scores))
    values = {key: float(value) for key, value in _compute(metric, predictions, references, settings).items()}
    judge_each = cast("Callable[..., Sequence[float]] | None", getattr(metric, "each", None))
    by_sample: list[float] = []
    if judge_each is not None and len(values) == 1:
        by_sample = [float(value) for value in judge_each(predictions, references, **settings)]
        if not getattr(metric, "corpus", False):
            return [(key, value, error_of_mean(by_sample, groups)) for key, value in values.items()], by_sample

    def error(key: str) -> float | None:
        def again(places: Sequence[int]) -> float:
            drawn = [predictions[place] for place in places]
            return float(_compute(metric, drawn, [references[place] for place in places], settings)[key])

        return bootstrap_error(again, len(scores), seed)

    return [(key, value, error(key)) for key, value in values.items()], by_sample


def _compute(
    metric: Metric, predictions: list[Any], references: list[Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    return metric.compute(predictions=predictions, references=references, **settings)


def _against(metric: Metric, scores: Sequence[Score]) -> list[Any]:
    """What the metric compares with: what is right, or another of the scorer's answers, or nothing."""
    name = getattr(metric, "against", None)
    if name is None:
        return [score.reference for score in scores]
    return [0 if name == "nothing" else score.answers[name] for score in scores]


def _references(references: list[Any]) -> list[Any]:
    """Lists of one text each become texts: what a metric that knows one right answer expects."""
    lists = [cast("list[Any]", reference) for reference in references if isinstance(reference, list)]
    if len(lists) == len(references) and all(len(each) == 1 for each in lists):
        return [each[0] for each in lists]
    return references
