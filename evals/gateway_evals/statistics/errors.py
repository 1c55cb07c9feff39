"""Standard errors of a mean: plain, over groups, and by bootstrap for what is no mean."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean: sample standard deviation over √n, as lm-eval reports it. For zeros and ones √(p(1-p)/(n-1)).

    None for fewer than two values.
    """
    count = len(values)
    if count < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (count - 1) / count)


def clustered_error(values: Sequence[float], groups: Sequence[Hashable]) -> float | None:
    """Of the mean where values of one group belong together: cluster-robust, as an OLS on a constant gives it.

    √(G/(G-1) · Σ over groups (Σ in the group (value - mean))²) / n; with groups of one it is `standard_error`. None for
    fewer than two groups.
    """
    centre = mean(values)
    sums: defaultdict[Hashable, float] = defaultdict(float)
    for value, group in zip(values, groups, strict=True):
        sums[group] += value - centre
    count = len(sums)
    if count < 2:
        return None
    return math.sqrt(count / (count - 1) * math.fsum(each * each for each in sums.values())) / len(values)


def error_of_mean(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> float | None:
    """Clustered where there are groups, else plain."""
    return standard_error(values) if groups is None else clustered_error(values, groups)


def bootstrap_error(
    compute: Callable[[Sequence[int]], float], count: int, seed: int, rounds: int = 100
) -> float | None:
    """Standard deviation of `compute` over `rounds` draws of `count` places with replacement. None below two."""
    if count < 2:
        return None
    generator = random.Random(seed)  # noqa: S311 (no secret)
    drawn = [compute([generator.randrange(count) for _ in range(count)]) for _ in range(rounds)]
    centre = mean(drawn)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in drawn) / (rounds - 1))
