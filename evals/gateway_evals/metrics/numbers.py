"""Metrics over numbers that a scorer gives: log-likelihoods as perplexities, shares, similarities."""

# evaluate has no types; `_compute` is meant to be overridden with the metric's own inputs.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from gateway_evals.metrics.local import NOTHING, NUMBERS, LocalMetric, mean

ROLLING = ("loglikelihood_rolling",)


class _Weighted(LocalMetric):
    """A function of the log-likelihood of all texts over the length of all texts."""

    higher_is_better = False
    features_ = NUMBERS
    reads = "loglikelihood"
    corpus = True
    output_types = ROLLING
    key: ClassVar[str]

    def _compute(self, predictions: Sequence[float], references: Sequence[int]) -> dict[str, float]:
        return {self.key: self.of(sum(predictions) / sum(references))}

    def each(self, predictions: Sequence[float], references: Sequence[int]) -> list[float]:
        return [self.of(value / length) for value, length in zip(predictions, references, strict=True)]

    def of(self, rate: float) -> float:
        return _exp(-rate)


class WordPerplexity(_Weighted):
    """Perplexity per word (`word_perplexity`): of texts of any tokenizer, so that models can be compared."""

    key = "word_perplexity"
    against = "words"
    aggregation = "weighted_perplexity"


class BytePerplexity(_Weighted):
    """Perplexity per byte (`byte_perplexity`)."""

    key = "byte_perplexity"
    against = "bytes"
    aggregation = "weighted_perplexity"


class BitsPerByte(_Weighted):
    """Bits that a byte of text costs (`bits_per_byte`): how well the model would compress it."""

    key = "bits_per_byte"
    against = "bytes"
    aggregation = "bits_per_byte"

    def of(self, rate: float) -> float:
        return -rate / math.log(2)


class TokenPerplexity(_Weighted):
    """Perplexity per token of the model's own (`token_perplexity`): only models of one tokenizer can be compared."""

    key = "token_perplexity"
    against = "tokens"
    aggregation = "weighted_perplexity"
    output_types = (*ROLLING, "loglikelihood")


class Perplexity(LocalMetric):
    """Of continuations (`perplexity`): exp of minus the mean log-likelihood of a whole text, as in lm-eval."""

    higher_is_better = False
    features_ = NUMBERS
    reads = "loglikelihood"
    aggregation = "perplexity"
    corpus = True
    output_types = ("loglikelihood",)

    def _compute(self, predictions: Sequence[float], references: Sequence[int]) -> dict[str, float]:
        return {"perplexity": _exp(-mean(predictions))}

    def each(self, predictions: Sequence[float], references: Sequence[int]) -> list[float]:
        return [_exp(-value) for value in predictions]


class Share(LocalMetric):
    """Mean of a number from 0 to 1 that a scorer gives each sample under this metric's name."""

    features_ = NUMBERS
    against = NOTHING
    output_types = ("generate_until", "multiple_choice", "loglikelihood", "loglikelihood_rolling")

    def __init__(self, name: str = "score", **settings: Any) -> None:
        self.reads = name  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__(**settings)

    def _compute(self, predictions: Sequence[float], references: Any) -> dict[str, float]:
        return {self.reads: mean(self.each(predictions, references))}

    def each(self, predictions: Sequence[float], references: Any) -> list[float]:
        return [float(value) for value in predictions]


def _exp(value: float) -> float:
    """Large, not an error, for a text that a model thinks impossible."""
    return math.exp(min(value, 700.0))
