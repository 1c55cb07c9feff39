"""Two models on the same samples: what differs, how surely, how much, and what could have been seen at all.

Differences are second minus first.
"""

# scipy has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, cast

from gateway_evals.statistics.errors import error_of_mean, mean
from gateway_evals.statistics.intervals import ROUNDS, Interval, clustered_interval

FEW_GROUPS = 20
"""Draws of fewer groups than this say less than they seem to: Student's t over groups stands in for them."""


@dataclass(frozen=True, slots=True)
class PairedResult:
    """A comparison of one metric over the samples that both answered."""

    count: int
    groups: int | None
    """Number of sources, where samples share them."""
    first: float
    second: float
    difference: float
    stderr: float | None
    interval: Interval | None
    """Of the difference, by paired bootstrap; over few groups by Student's t."""
    p_value: float | None
    test: str
    """`mcnemar` for zeros and ones without groups, `clustered` over few groups, else `bootstrap`."""
    effect: float | None
    """Cohen's d of the differences: their mean over their standard deviation. None where all differ by the same."""
    effect_interval: Interval | None
    detectable: float | None
    """The smallest true difference that this comparison would find four times out of five."""
    wins: int
    """Samples on which the second is larger."""
    losses: int


def compare_pairs(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    seed: int = 1234,
    level: float = 0.95,
    rounds: int = ROUNDS,
) -> PairedResult:
    """Everything about one metric on pairs of values. Raises ValueError where there are none or they do not pair."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    if not differences:
        raise ValueError("no pair to compare")
    if groups is not None and len(set(groups)) == len(groups):
        groups = None
    error = error_of_mean(differences, groups)
    interval = effect_range = p_value = effect = None
    wins, losses = sum(each > 0 for each in differences), sum(each < 0 for each in differences)
    test = "bootstrap"
    if error is not None:
        interval, p_value = paired_bootstrap(first, second, groups, seed=seed, level=level, rounds=rounds)
        effect, effect_range = effect_size(differences, groups, seed=seed, level=level, rounds=rounds)
    if groups is None and all(value in (0, 1) for value in (*first, *second)):
        p_value, test = mcnemar(losses, wins), "mcnemar"
    if groups is not None and error is not None and len(set(groups)) < FEW_GROUPS:
        (interval, p_value), test = clustered_test(mean(differences), error, len(set(groups)), level), "clustered"
    return PairedResult(
        count=len(differences),
        groups=None if groups is None else len(set(groups)),
        first=mean(first),
        second=mean(second),
        difference=mean(differences),
        stderr=error,
        interval=interval,
        p_value=p_value,
        test=test,
        effect=effect,
        effect_interval=effect_range,
        detectable=None if error is None else minimum_detectable_effect(error, alpha=1 - level),
        wins=wins,
        losses=losses,
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of as uneven a split of the samples that one of the two alone got right."""
    count = only_first + only_second
    if count == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(cast("Any", binomtest(min(only_first, only_second), count, 0.5)).pvalue)


def clustered_test(difference: float, error: float, groups: int, level: float = 0.95) -> tuple[Interval, float]:
    """Interval of a mean difference with this cluster-robust error, and its two-sided p: Student's t, G-1 degrees."""
    from scipy.stats import t

    beyond: Any = cast("Any", t).sf
    p_value = 1.0 if difference == 0 else 0.0 if error == 0 else 2 * float(beyond(abs(difference / error), groups - 1))
    return clustered_interval(difference, error, groups, level), p_value


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    seed: int = 1234,
    rounds: int = ROUNDS,
    level: float = 0.95,
) -> tuple[Interval, float]:
    """Interval of the mean difference over draws of pairs (or of groups of pairs), and its two-sided p.

    p is twice the smaller share of draws on either side of zero, never below 2/(rounds+1).
    """
    import numpy as np

    from gateway_evals.statistics.draws import moments_of_draws

    differences = [b - a for a, b in zip(first, second, strict=True)]
    means, _ = moments_of_draws(differences, groups, rounds, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    p_value = min(1.0, 2 * (min(below, above) + 1) / (rounds + 1))
    return Interval(float(low), float(high), level, "bootstrap"), p_value


def effect_size(
    differences: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    seed: int = 1234,
    rounds: int = ROUNDS,
    level: float = 0.95,
) -> tuple[float | None, Interval | None]:
    """Cohen's d of paired differences (mean over standard deviation), with its bootstrap interval.

    0 where nothing differs; None where everything differs by the same, which no such number can say.
    """
    import numpy as np

    from gateway_evals.statistics.draws import moments_of_draws

    centre = mean(differences)
    if len(differences) < 2:
        return None, None
    spread = math.sqrt(math.fsum((each - centre) ** 2 for each in differences) / (len(differences) - 1))
    if spread <= 1e-12 * max(1.0, abs(centre)):
        return (0.0, Interval(0.0, 0.0, level, "bootstrap")) if centre == 0 else (None, None)
    means, deviations = moments_of_draws(differences, groups, rounds, seed)
    usable = deviations > 1e-9 * spread
    low, high = np.quantile(means[usable] / deviations[usable], [(1 - level) / 2, (1 + level) / 2])
    return centre / spread, Interval(float(low), float(high), level, "bootstrap")


def minimum_detectable_effect(stderr: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The true difference that a two-sided test finds with this probability: (z₁₋α⁄₂ + z_power) · stderr."""
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * stderr
