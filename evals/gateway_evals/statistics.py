"""Standard errors. Pure functions over numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence


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
