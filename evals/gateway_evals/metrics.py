"""Metrics as `evaluate.Metric` subclasses, thin over scikit-learn. Imported only by the factories in `offers`: heavy.

A metric names the answer it reads (`reads`), and gives a value for each sample (`each`) where there is one: standard
errors come from these, and by bootstrap for a metric that only knows the whole.
"""

# evaluate, datasets and scikit-learn have no types; `_compute` is meant to be overridden with the metric's own inputs.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportIncompatibleMethodOverride=false, reportArgumentType=false

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import datasets
import evaluate
from sklearn.metrics import accuracy_score, f1_score

Texts = Sequence[str]
References = Sequence[str] | Sequence[Sequence[str]]

_TEXTS = [
    datasets.Features(
        {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
    ),
    datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}),
]
_CHOICES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})


class _LocalMetric(evaluate.Metric):
    """A metric that keeps its data in memory and leaves no folder in anybody's home."""

    features_: ClassVar[Any]
    reads: ClassVar[str] = "answer"

    def __init__(self, **settings: Any) -> None:
        super().__init__(keep_in_memory=True, **settings)

    def _build_data_dir(self) -> str:
        return ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__ or "", citation="", inputs_description="", features=self.features_
        )


class Accuracy(_LocalMetric):
    """Share of right choices, by plain log-likelihood (`acc`)."""

    features_ = _CHOICES
    key: ClassVar[str] = "acc"

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {self.key: float(accuracy_score(references, predictions))}

    def each(self, predictions: Sequence[int], references: Sequence[int]) -> list[float]:
        return [float(ours == right) for ours, right in zip(predictions, references, strict=True)]


class AccuracyNorm(Accuracy):
    """Share of right choices, by log-likelihood per character (`acc_norm`)."""

    key = "acc_norm"
    reads = "answer_norm"


class MacroF1(_LocalMetric):
    """Unweighted mean over classes of F1 (`macro_f1`), for tasks whose choices are the same in every row."""

    features_ = _CHOICES

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0))}


class ExactMatch(_LocalMetric):
    """Share of answers equal to a right text (`exact_match`), after the same normalising of both."""

    features_ = _TEXTS

    def _compute(self, predictions: Texts, references: References, **settings: Any) -> dict[str, float]:
        return {"exact_match": _mean(self.each(predictions, references, **settings))}

    def each(
        self,
        predictions: Texts,
        references: References,
        *,
        ignore_case: bool = False,
        ignore_punctuation: bool = False,
        ignore_numbers: bool = False,
        regexes_to_ignore: Sequence[str] = (),
    ) -> list[float]:
        def plain(text: str) -> str:
            for pattern in regexes_to_ignore:
                text = re.sub(pattern, "", text)
            text = text.lower() if ignore_case else text
            text = text.translate(_NO_PUNCTUATION) if ignore_punctuation else text
            return text.translate(_NO_DIGITS) if ignore_numbers else text

        return _best(predictions, references, lambda ours, right: float(plain(ours) == plain(right)))


class TokenF1(_LocalMetric):
    """Overlap of words with a right text (`f1`): case, punctuation and English articles do not count (as for SQuAD)."""

    features_ = _TEXTS

    def _compute(self, predictions: Texts, references: References) -> dict[str, float]:
        return {"f1": _mean(self.each(predictions, references))}

    def each(self, predictions: Texts, references: References) -> list[float]:
        return _best(predictions, references, _overlap)


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_DIGITS = str.maketrans("", "", string.digits)


def _best(predictions: Texts, references: References, compare: Callable[[str, str], float]) -> list[float]:
    """The best value over a sample's right texts."""
    return [
        max(compare(ours, text) for text in ([right] if isinstance(right, str) else right))
        for ours, right in zip(predictions, references, strict=True)
    ]


def _overlap(ours: str, right: str) -> float:
    first, second = _words(ours), _words(right)
    if not first or not second:
        return float(first == second)
    common = sum((Counter(first) & Counter(second)).values())
    return 2 * common / (len(first) + len(second))


def _words(text: str) -> list[str]:
    words = text.lower().translate(_NO_PUNCTUATION).split()
    return [word for word in words if word not in {"a", "an", "the"}]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
