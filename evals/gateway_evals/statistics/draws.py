"""Draws with replacement, of samples or of whole groups, as arrays. The same seed draws the same."""

# numpy's own annotations are partial where arrays of unknown type meet.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

CELLS = 4_000_000
"""Numbers held at once: draws are made in blocks, so that 20,000 samples cost no gigabyte."""


def moments_of_draws(
    values: Sequence[float], groups: Sequence[Hashable] | None, rounds: int, seed: int
) -> tuple[Array, Array]:
    """Mean and standard deviation (n-1) of each of `rounds` draws; each array has the shape (rounds,)."""
    counts, sums, squares = _by_group(np.asarray(values, dtype=np.float64), groups)
    means: list[Array] = []
    deviations: list[Array] = []
    for places in _places(len(sums), rounds, seed):
        count = counts[places].sum(axis=1)
        centre = sums[places].sum(axis=1) / count
        spread = squares[places].sum(axis=1) / count - centre**2
        means.append(centre)
        deviations.append(np.sqrt(np.maximum(spread, 0.0) * count / np.maximum(count - 1, 1)))
    return np.concatenate(means), np.concatenate(deviations)


def _by_group(values: Array, groups: Sequence[Hashable] | None) -> tuple[Array, Array, Array]:
    """Number, sum and sum of squares of each group; without groups each value is its own."""
    if groups is None:
        return np.ones_like(values), values, values**2
    numbers: dict[Hashable, int] = {}
    index = np.asarray([numbers.setdefault(group, len(numbers)) for group in groups])
    counts, sums, squares = (np.zeros(len(numbers)) for _ in range(3))
    np.add.at(counts, index, 1.0)
    np.add.at(sums, index, values)
    np.add.at(squares, index, values**2)
    return counts, sums, squares


def _places(count: int, rounds: int, seed: int) -> Iterator[Any]:
    generator = np.random.default_rng(seed)
    block = max(1, CELLS // count)
    for first in range(0, rounds, block):
        yield generator.integers(0, count, size=(min(block, rounds - first), count))
