"""What all metrics here are: an `evaluate.Metric` that keeps its data in memory and leaves no folder behind."""

# evaluate and datasets have no types; `_compute` is meant to be overridden with the metric's own inputs.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import datasets
import evaluate

Texts = Sequence[str]
References = Sequence[str] | Sequence[Sequence[str]]

TEXTS = [
    datasets.Features(
        {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
    ),
    datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}),
]
LABELS = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
CHOICES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
PROBABILITIES = datasets.Features(
    {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
)
NUMBERS = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")})

NOTHING = "nothing"
"""For `against`: the metric compares with nothing; its references are zeros."""

GENERATION = ("generate_until",)
CHOOSING = ("multiple_choice",)


class LocalMetric(evaluate.Metric):
    """Subclasses say what they read of a Score, and give a value for each sample (`each`) where there is one."""

    features_: ClassVar[Any]
    reads: ClassVar[str] = "answer"
    """Which of a Score's answers are the predictions."""
    against: ClassVar[str | None] = None
    """Which of a Score's answers are the references; None: its reference; NOTHING: zeros."""
    aggregation: ClassVar[str] = "mean"
    """lm-eval's name of how samples become one number."""
    corpus: ClassVar[bool] = False
    """True: the whole is not the mean over `each`; its standard error comes by bootstrap."""
    higher_is_better: ClassVar[bool] = True
    """What a task that does not say means."""
    output_types: ClassVar[tuple[str, ...]] = GENERATION
    """Tasks whose answers it can read."""
    others: ClassVar[Mapping[str, type[LocalMetric]]] = {}
    """Output types for which another class stands under this name."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(keep_in_memory=True, **settings)

    def _build_data_dir(self) -> str:
        return ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__ or "", citation="", inputs_description="", features=self.features_
        )


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def listed(right: str | Sequence[str]) -> Sequence[str]:
    """One right text or several, as several."""
    return [right] if isinstance(right, str) else right


def best(predictions: Texts, references: References, compare: Callable[[str, str], float]) -> list[float]:
    """For each sample the best value over its right texts."""
    return [
        max(compare(ours, text) for text in listed(right)) for ours, right in zip(predictions, references, strict=True)
    ]
