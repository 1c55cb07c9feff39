"""From logits to tokens and their log-probabilities. Pure numpy; knows no graph and no batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.engine import Sampling, TokenLogprob

_BLOCK = 256
"""Tokens of neighbouring ids that are drawn as one, before one of them is: few random numbers for many tokens."""


class Sampler:
    """Draws one sequence's tokens with a random stream of its own, so that its neighbours cannot disturb it."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(None if sampling.seed is None else sampling.seed % 2**64)

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token of logits [vocabulary]: temperature, then top_k, then top_p, then one draw."""
        sampling = self._sampling
        if sampling.temperature <= 0 or sampling.top_k == 1:
            return int(logits.argmax())
        # Below this temperature only equals of the best have any weight left, whatever the logits.
        scaled: NDArray[np.float32] = (logits - logits.max()) / np.float32(max(sampling.temperature, 1e-6))
        ids: NDArray[np.intp] | None = None
        if 0 < sampling.top_k < scaled.size:
            ids = _best(scaled, sampling.top_k)
            scaled = scaled[ids]
        weights: NDArray[np.float32] = np.exp(scaled)
        if sampling.min_p > 0:
            weights = np.where(weights < weights.max() * np.float32(sampling.min_p), np.float32(0), weights)
        if sampling.top_p < 1:
            kept = _nucleus(weights, sampling.top_p)
            ids, weights = (kept if ids is None else ids[kept]), weights[kept]
        if ids is not None:
            # Back to their places: a token has the same noise whatever else was left in.
            spread: NDArray[np.float32] = np.zeros(logits.size, np.float32)
            spread[ids] = weights
            weights = spread
        return _draw(weights, self._random)


def _best(values: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Indices of the `count` largest, best first, the lower index first among equals."""
    if count >= values.size:
        return np.argsort(-values, kind="stable")
    # Counted from the best: where equals stand on both sides of the limit, the lower indices are within.
    limit = np.partition(values, values.size - count)[values.size - count]
    above: NDArray[np.intp] = np.flatnonzero(values > limit)
    equal: NDArray[np.intp] = np.flatnonzero(values == limit)[: count - above.size]
    return np.concatenate([above[np.argsort(-values[above], kind="stable")], equal])


def _nucleus(weights: NDArray[np.float32], top_p: float) -> NDArray[np.intp]:
    """Indices of the smallest set of best candidates that holds `top_p` of the weight: at least one."""
    total = float(weights.sum(dtype=np.float64))
    # Everything at or below this, taken together, weighs less than the nucleus may leave out: only the rest is sorted.
    likely: NDArray[np.intp] = np.flatnonzero(weights > (1 - top_p) * total / weights.size * (1 - 1e-6))
    # Sorting values is ten times as fast as sorting indices by them.
    falling: NDArray[np.float32] = np.sort(weights[likely])[::-1]
    heap: NDArray[np.float64] = falling.cumsum(dtype=np.float64)
    count = min(int(heap.searchsorted(top_p * total)) + 1, falling.size)
    limit = falling[count - 1]
    above: NDArray[np.intp] = likely[weights[likely] > limit]
    equal: NDArray[np.intp] = likely[weights[likely] == limit]
    return np.concatenate([above, equal[: count - above.size]])


def _draw(weights: NDArray[np.float32], generator: np.random.Generator) -> int:
    """An index, by its share of the weights.

    The largest of weight / exponential noise wins with just that share (the exponential race). First the blocks race,
    then the candidates of the one that won. A seed must repeat its answer although the last bits of a logit depend on
    who else is in the batch: they decide a race only where two are level, but they move the place in a running sum of
    probabilities by as much as an unlikely token is wide.
    """
    blocks = np.add.reduceat(weights, np.arange(0, weights.size, _BLOCK), dtype=np.float64)
    start = int((blocks / generator.standard_exponential(blocks.size)).argmax()) * _BLOCK
    inside = weights[start : start + _BLOCK]
    return start + int((inside / generator.standard_exponential(inside.size)).argmax())


def logprob_of(logits: NDArray[np.float32], token: int, top: int) -> TokenLogprob:
    """Natural-log probability of a token under logits [vocabulary], with the `top` best alternatives."""
    return logprobs_of(logits[None, :], [token], top)[0]


def logprobs_of(
    logits: NDArray[np.float32], tokens: Sequence[int], top: int, *, ranked: bool = False
) -> list[TokenLogprob]:
    """The same for logits [positions, vocabulary] and one token of each position; `ranked`: with its rank."""
    # Row by row: one position's numbers stay in the processor's cache, a whole chunk's do not.
    scratch: NDArray[np.float32] = np.empty_like(logits[0])
    found: list[TokenLogprob] = []
    for place, token in enumerate(tokens):
        row = logits[place]
        peak = row.max()
        np.exp(np.subtract(row, peak, out=scratch), out=scratch)
        base = float(peak) + math.log(float(scratch.sum()))
        best = [int(row.argmax())] if top == 1 else _best(row, top).tolist() if top > 0 else []
        # One way to a float everywhere: greedy is tested by equality with the best alternative.
        pairs = tuple((int(other), float(row[other]) - base) for other in best)
        rank = int(np.count_nonzero(row > row[token])) + 1 if ranked else None
        found.append(TokenLogprob(float(row[token]) - base, pairs, rank))
    return found
