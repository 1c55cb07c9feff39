"""Intervals around one mean: Wilson's for shares, by bootstrap for anything else, Student's over groups. Quantiles."""

# scipy has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, cast

from gateway_evals.statistics.errors import clustered_error, mean

ROUNDS = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true value lies, at a level of confidence."""

    low: float
    high: float
    level: float = 0.95
    method: str = ""
    """`wilson`, `bootstrap`, `clustered` or `normal`."""


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` of all do not exceed, one of them; None where there is none."""
    return sorted(values)[int(share * (len(values) - 1) + 0.5)] if values else None


def normal_interval(centre: float, error: float, level: float = 0.95) -> Interval:
    """Around an estimate of which nothing but its standard error is known."""
    half = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(centre - half, centre + half, level, "normal")


def clustered_interval(centre: float, error: float, groups: int, level: float = 0.95) -> Interval:
    """Around a mean with this cluster-robust error: Student's t with one degree of freedom less than groups."""
    from scipy.stats import t

    half = error * float(cast("Any", t).ppf((1 + level) / 2, groups - 1))
    return Interval(centre - half, centre + half, level, "clustered")


def wilson(successes: int, count: int, level: float = 0.95) -> Interval:
    """Of a share; never leaves [0, 1] and keeps its width at 0 and 1. `count` ≥ 1."""
    from scipy.stats import binomtest

    found: Any = cast("Any", binomtest(successes, count)).proportion_ci(level, method="wilson")
    # At 0 and at all the bounds are exact; rounding left 1e-17 beside them.
    low = 0.0 if successes == 0 else float(found.low)
    return Interval(low, 1.0 if successes == count else float(found.high), level, "wilson")


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    seed: int = 1234,
    rounds: int = ROUNDS,
    level: float = 0.95,
) -> Interval:
    """Percentiles of the means of `rounds` draws with replacement; whole groups are drawn where there are any."""
    import numpy as np

    from gateway_evals.statistics.draws import moments_of_draws

    means, _ = moments_of_draws(values, groups, rounds, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, "bootstrap")


def interval_of_mean(
    values: Sequence[float], groups: Sequence[Hashable] | None = None, *, seed: int = 1234, level: float = 0.95
) -> Interval | None:
    """The one that fits: over groups by Student's t with G-1 degrees of freedom, Wilson's for zeros and ones, else by
    bootstrap. None for fewer than two values or groups."""
    if len(values) < 2:
        return None
    share = all(value in (0, 1) for value in values)
    if groups is not None and len(set(groups)) < len(values):
        return _clustered(values, groups, level, share)
    if share:
        return wilson(round(sum(values)), len(values), level)
    return bootstrap_interval(values, seed=seed, level=level)


def _clustered(values: Sequence[float], groups: Sequence[Hashable], level: float, share: bool) -> Interval | None:
    error = clustered_error(values, groups)
    if error is None:
        return None
    found = clustered_interval(mean(values), error, len(set(groups)), level)
    # What never is below 0 has no mean below it.
    low = max(0.0, found.low) if min(values) >= 0 else found.low
    return Interval(low, min(1.0, found.high) if share else found.high, level, found.method)
