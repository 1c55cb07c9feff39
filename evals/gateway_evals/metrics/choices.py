"""Metrics over choices and labels: accuracies, calibration, classification."""

# evaluate and scikit-learn have no types; `_compute` is meant to be overridden with the metric's own inputs.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportIncompatibleMethodOverride=false, reportArgumentType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from gateway_evals.metrics.local import CHOICES, CHOOSING, GENERATION, LABELS, PROBABILITIES, LocalMetric, mean

Labels = Sequence[int] | Sequence[str]


class Accuracy(LocalMetric):
    """Share of right choices, by plain log-likelihood (`acc`); of texts that greedy decoding would write."""

    features_ = CHOICES
    key: ClassVar[str] = "acc"
    output_types = (*CHOOSING, "loglikelihood")

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {self.key: mean(self.each(predictions, references))}

    def each(self, predictions: Sequence[int], references: Sequence[int]) -> list[float]:
        return [float(ours == right) for ours, right in zip(predictions, references, strict=True)]


class AccuracyNorm(Accuracy):
    """Share of right choices, by log-likelihood per character (`acc_norm`)."""

    key = "acc_norm"
    reads = "answer_norm"
    output_types = CHOOSING


class AccuracyBytes(Accuracy):
    """Share of right choices, by log-likelihood per byte (`acc_bytes`)."""

    key = "acc_bytes"
    reads = "answer_bytes"
    output_types = CHOOSING


class BrierScore(LocalMetric):
    """Mean squared distance of the choices' probabilities from what is right, summed over choices (`brier_score`)."""

    higher_is_better = False
    features_ = PROBABILITIES
    reads = "probabilities"
    aggregation = "brier_score"
    output_types = CHOOSING

    def _compute(self, predictions: Sequence[Sequence[float]], references: Sequence[int]) -> dict[str, float]:
        return {"brier_score": mean(self.each(predictions, references))}

    def each(self, predictions: Sequence[Sequence[float]], references: Sequence[int]) -> list[float]:
        return [
            float(sum((share - (place == right)) ** 2 for place, share in enumerate(shares)))
            for shares, right in zip(predictions, references, strict=True)
        ]


class CalibrationError(LocalMetric):
    """Expected calibration error (`ece`): how far confidence is from accuracy, in bins of equal width."""

    higher_is_better = False
    features_ = PROBABILITIES
    reads = "probabilities"
    aggregation = "ece"
    output_types = CHOOSING

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[int], bins: int = 10
    ) -> dict[str, float]:
        confidence = np.array([max(shares) for shares in predictions])
        right = np.array(
            [int(np.argmax(shares)) == gold for shares, gold in zip(predictions, references, strict=True)], dtype=float
        )
        # A bin holds its upper edge, so that 1.0 is in the last one.
        place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        error = sum(
            abs(float(confidence[place == each].mean() - right[place == each].mean())) * float((place == each).mean())
            for each in np.unique(place)
        )
        return {"ece": float(error)}


class _Classification(LocalMetric):
    """A figure of a confusion matrix. Only the whole has a value."""

    features_ = CHOICES
    key: ClassVar[str]
    aggregation = "classification"
    output_types = (*CHOOSING, *GENERATION)

    def _compute(self, predictions: Labels, references: Labels) -> dict[str, float]:
        return {self.key: float(self.figure(predictions, references))}

    def figure(self, ours: Labels, right: Labels) -> Any:
        raise NotImplementedError


class MacroF1(_Classification):
    """Unweighted mean over classes of F1 (`macro_f1`), for tasks whose choices are the same in every row."""

    key = "macro_f1"

    def figure(self, ours: Labels, right: Labels) -> Any:
        return _scikit().f1_score(right, ours, labels=_classes(ours, right), average="macro", zero_division=0)


class WeightedF1(_Classification):
    """Mean over classes of F1, weighted by how often they are right (`weighted_f1`)."""

    key = "weighted_f1"

    def figure(self, ours: Labels, right: Labels) -> Any:
        return _scikit().f1_score(right, ours, labels=_classes(ours, right), average="weighted", zero_division=0)


class MacroPrecision(_Classification):
    """Unweighted mean over classes of precision (`macro_precision`)."""

    key = "macro_precision"

    def figure(self, ours: Labels, right: Labels) -> Any:
        return _scikit().precision_score(right, ours, labels=_classes(ours, right), average="macro", zero_division=0)


class MacroRecall(_Classification):
    """Unweighted mean over classes of recall (`macro_recall`)."""

    key = "macro_recall"

    def figure(self, ours: Labels, right: Labels) -> Any:
        return _scikit().recall_score(right, ours, labels=_classes(ours, right), average="macro", zero_division=0)


class BalancedAccuracy(_Classification):
    """Mean over the classes that occur of the share that was found (`balanced_accuracy`)."""

    key = "balanced_accuracy"

    def figure(self, ours: Labels, right: Labels) -> Any:
        return _scikit().balanced_accuracy_score(right, ours)


class Matthews(_Classification):
    """Matthews' correlation coefficient (`mcc`)."""

    key = "mcc"
    aggregation = "matthews_corrcoef"

    def figure(self, ours: Labels, right: Labels) -> Any:
        return _scikit().matthews_corrcoef(right, ours)


class BinaryF1(_Classification):
    """F1 of choice 1 against choice 0 (`f1` where there are choices, as in lm-eval)."""

    key = "f1"
    aggregation = "f1"
    output_types = CHOOSING

    def figure(self, ours: Labels, right: Labels) -> Any:
        return _scikit().f1_score(right, ours, zero_division=0)


def _scikit() -> Any:
    """scikit-learn's metrics. A second or two to import, and few suites ask for any of them."""
    from sklearn import metrics

    return metrics


def _classes(ours: Labels, right: Labels) -> list[Any]:
    """For texts only those that are right somewhere: whatever else a model says is no class, only wrong."""
    found = set(right) if any(isinstance(label, str) for label in right) else {*right, *ours}
    return sorted(found)


def of_texts(metric: type[_Classification]) -> type[_Classification]:
    """The same metric where the labels are texts that a model wrote."""
    return type(f"{metric.__name__}OfTexts", (metric,), {"features_": LABELS, "__doc__": metric.__doc__})


for _metric in (MacroF1, WeightedF1, MacroPrecision, MacroRecall, BalancedAccuracy, Matthews):
    _metric.others = {"generate_until": of_texts(_metric)}
