"""From logits to tokens and their log-probabilities. Pure numpy; knows no graph and no batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.engine import Sampling, TokenLogprob

_LIKELY = 512
"""Candidates looked at first for top_p: a nucleus is seldom larger, and a whole sort costs milliseconds."""


class Sampler:
    """Draws one sequence's tokens with a random stream of its own, so that its neighbours cannot disturb it."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.Generator(np.random.PCG64(None if sampling.seed is None else sampling.seed % 2**64))

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token of logits [vocabulary]: temperature, then top_k, then top_p, then one draw."""
        sampling = self._sampling
        if sampling.temperature <= 0 or sampling.top_k == 1:
            return int(logits.argmax())
        scaled: NDArray[np.float64] = (logits.astype(np.float64) - float(logits.max())) / max(
            sampling.temperature, 1e-6
        )
        limit = sampling.top_k if 0 < sampling.top_k < scaled.size else scaled.size
        ids: NDArray[np.intp] | None = _best(scaled, limit) if limit < scaled.size else None
        weights: NDArray[np.float64] = np.exp(scaled if ids is None else scaled[ids])
        if sampling.top_p < 1:
            ids, weights = _nucleus(weights, ids, sampling.top_p)
        heap = weights.cumsum()
        place = int(heap.searchsorted(self._random.random() * heap[-1], side="right"))
        place = min(place, weights.size - 1)
        return place if ids is None else int(ids[place])


def _best(values: NDArray[np.float64] | NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Indices of the `count` largest, best first, the lower index first among equals."""
    if count >= values.size:
        return np.argsort(-values, kind="stable")
    found = np.sort(np.argpartition(values, values.size - count)[values.size - count :])
    return found[np.argsort(-values[found], kind="stable")]


def _nucleus(
    weights: NDArray[np.float64], ids: NDArray[np.intp] | None, top_p: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The smallest set of best candidates that holds `top_p` of the weight: at least one."""
    wanted = top_p * float(weights.sum())
    order = _best(weights, _LIKELY)
    if float(weights[order].sum()) < wanted:
        order = _best(weights, weights.size)
    kept = order[: int(weights[order].cumsum().searchsorted(wanted)) + 1]
    return (kept if ids is None else ids[kept]), weights[kept]


def logprob_of(logits: NDArray[np.float32], token: int, top: int) -> TokenLogprob:
    """Natural-log probability of a token under logits [vocabulary], with the `top` best alternatives."""
    return logprobs_of(logits[None, :], [token], top)[0]


def logprobs_of(logits: NDArray[np.float32], tokens: Sequence[int], top: int) -> list[TokenLogprob]:
    """The same for logits [positions, vocabulary] and one token of each position."""
    peak = logits.max(axis=-1)
    total = np.exp(logits - peak[:, None]).sum(axis=-1, dtype=np.float64)
    normal = peak.astype(np.float64) + np.log(total)
    found: list[TokenLogprob] = []
    for place, token in enumerate(tokens):
        row, base = logits[place], float(normal[place])
        best = [int(row.argmax())] if top == 1 else _best(row, top).tolist() if top > 0 else []
        # One way to a float everywhere: greedy is tested by equality with the best alternative.
        pairs = tuple((int(other), float(row[other]) - base) for other in best)
        found.append(TokenLogprob(float(row[token]) - base, pairs))
    return found
