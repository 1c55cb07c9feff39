"""How strong each side is, from battles between two at a time: Bradley and Terry's model with intervals.

P(a beats b) = 1 / (1 + 10^((b - a) / 400)) for ratings a and b, as in chess; a tie is half a win for each.
Imports numpy only when asked for a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

Battle = tuple[str, str, float]
"""(a, b, a's score): 1 where a won, 0 where b won, 0.5 for a tie."""

MIDDLE = 1000.0
"""The mean of all ratings."""
_SCALE = 400 / 2.302585092994046
"""Rating points for one nat: 400 for odds of ten to one."""
_PRIOR = 0.1
"""Precision of a normal prior on strengths in nats (its deviation is 550 points): a side that never lost has a rating
too, and sides that never met are compared through the middle."""
_STEPS = 50
_LARGEST_STEP = 2.0
_MOST_AT_ONCE = 4_000_000
"""Numbers in the Hessians of the samples that are fitted together."""


@dataclass(frozen=True, slots=True)
class Strength:
    """One side's result."""

    name: str
    rating: float
    low: float
    high: float
    """The interval of the rating, at the confidence that was asked for."""
    wins: int
    losses: int
    ties: int

    @property
    def battles(self) -> int:
        return self.wins + self.losses + self.ties


def strengths(
    battles: Mapping[Battle, int], *, rounds: int = 500, confidence: float = 0.95, seed: int = 0
) -> list[Strength]:
    """Every side that battled, the strongest first. `battles` says how often each outcome was seen:
    `collections.Counter(outcomes)`. The interval comes from `rounds` samples of the battles with replacement, and is
    never narrower than the normal one around the estimate: where all outcomes are alike, all samples are.

    Raises ValueError for a side against itself, a score that is none, or a count below zero.
    """
    import numpy as np

    counts: dict[Battle, int] = {}
    for (a, b, score), count in battles.items():
        if a == b or score not in (0, 0.5, 1) or count < 0:
            raise ValueError(f"no battle: {(a, b, score)} {count} times")
        if count:
            counts[(a, b, float(score))] = counts.get((a, b, float(score)), 0) + count
    if not counts:
        return []
    names = sorted({name for a, b, _ in counts for name in (a, b)})
    index = {name: position for position, name in enumerate(names)}
    cells = _Cells(
        np.array([index[a] for a, _, _ in counts]),
        np.array([index[b] for _, b, _ in counts]),
        np.array([score for _, _, score in counts]),
        len(names),
    )
    seen = np.array(list(counts.values()), dtype=float)
    fitted = cells.fit(seen[None])
    rating = MIDDLE + _SCALE * fitted[0]
    reach = _SCALE * NormalDist().inv_cdf((1 + confidence) / 2) * cells.deviations(fitted, seen[None])[0]
    total = int(seen.sum())
    samples = np.random.default_rng(seed).multinomial(total, seen / total, size=rounds).astype(float)
    sampled = MIDDLE + _SCALE * cells.fit(samples)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(sampled, [tail, 100 - tail], axis=0)
    found = [
        Strength(
            name,
            float(rating[position]),
            float(min(low[position], rating[position] - reach[position])),
            float(max(high[position], rating[position] + reach[position])),
            *_outcomes(counts, name),
        )
        for name, position in index.items()
    ]
    return sorted(found, key=lambda one: (-one.rating, one.name))


def _outcomes(counts: Mapping[Battle, int], name: str) -> tuple[int, int, int]:
    """(wins, losses, ties) of one side."""
    wins = losses = ties = 0
    for (a, b, score), count in counts.items():
        if name not in (a, b):
            continue
        own = score if name == a else 1 - score
        wins, losses, ties = wins + count * (own == 1), losses + count * (own == 0), ties + count * (own == 0.5)
    return wins, losses, ties


class _Cells:
    """Which sides meet in each kind of outcome. Arrays of one entry an outcome."""

    def __init__(self, a: Any, b: Any, score: Any, sides: int) -> None:
        import numpy as np

        self._sides = sides
        self._score = score
        self._difference = np.zeros((len(score), sides))
        """[outcomes, sides]: +1 for a, -1 for b."""
        self._difference[np.arange(len(score)), a] = 1
        self._difference[np.arange(len(score)), b] = -1

    def fit(self, counts: Any) -> Any:
        """Strengths in nats [samples, sides], mean zero, for counts [samples, outcomes]: Newton's method, a block of
        samples at a time."""
        import numpy as np

        block = max(1, _MOST_AT_ONCE // self._sides**2)
        return np.concatenate([self._fit(counts[at : at + block]) for at in range(0, len(counts), block)])

    def _fit(self, counts: Any) -> Any:
        import numpy as np

        theta = np.zeros((len(counts), self._sides))
        for _ in range(_STEPS):
            step = self._step(theta, counts)
            theta = theta + np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
            if np.max(np.abs(step)) < 1e-9:
                break
        return theta - np.mean(theta, axis=1, keepdims=True)

    def deviations(self, theta: Any, counts: Any) -> Any:
        """Standard deviations [samples, sides] of strengths around their mean, by the curvature at `theta`."""
        import numpy as np

        centred = np.eye(self._sides) - 1 / self._sides
        invert: Any = np.linalg.inv
        covariance: Any = centred @ invert(self._curvature(counts, self._chances(theta))) @ centred
        return np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))

    def _chances(self, theta: Any) -> Any:
        """Of each outcome's first side to win."""
        import numpy as np

        odds: Any = np.exp(-(theta @ self._difference.T))
        return 1 / (1 + odds)

    def _curvature(self, counts: Any, chance: Any) -> Any:
        """The negative log posterior's second derivative [samples, sides, sides]."""
        import numpy as np

        weight = counts * chance * (1 - chance)
        apart = self._difference
        seen: Any = np.einsum("so,oi,oj->sij", weight, apart, apart, optimize=True)
        return seen + _PRIOR * np.eye(self._sides)

    def _step(self, theta: Any, counts: Any) -> Any:
        """Newton's step towards the most likely strengths, from `theta` [samples, sides]."""
        import numpy as np

        chance = self._chances(theta)
        gradient = (counts * (self._score - chance)) @ self._difference - _PRIOR * theta
        solve: Any = np.linalg.solve
        return solve(self._curvature(counts, chance), gradient[..., None])[..., 0]
