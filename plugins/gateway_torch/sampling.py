"""Logits → tokens: every row by its own temperature, top_k, top_p and seed, all rows in the same tensor operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gateway.engine import Sampling, TokenLogprob
from gateway.errors import GatewayError
from gateway.logits import LogitRules
from gateway_torch.row import Row

GREEDY_BELOW = 1e-5
"""Temperatures below this would only overflow: they mean the largest logit."""

CANDIDATES = 1024
"""How many of the likeliest tokens are sorted first: nearly always enough to fill top_p, and much cheaper than all."""

BLOCK = 256
"""Tokens of neighbouring ids that are drawn as one, before one of them is: few random numbers for many tokens."""


def choose(logits: torch.Tensor, rows: Sequence[Row]) -> tuple[list[int], list[TokenLogprob | None]]:
    """The next token of each row, and its log-probability where the row asks. `logits`: `[rows, vocab]`, float32.

    What a row's rules raise is left in its `failure`: its token means nothing then, and its neighbours' theirs.
    """
    wishes = [row.sampling for row in rows if row.sampling is not None]
    own = logits
    if any(row.rules is not None for row in rows):
        # Log-probabilities are those of the model's own distribution.
        logits = logits.clone() if any(wish.logprobs is not None for wish in wishes) else logits
        for row, line in zip(rows, logits, strict=True):
            if row.rules is not None:
                _apply(row, row.rules, line)
    tokens = logits.argmax(-1)
    drawn = [index for index, wish in enumerate(wishes) if wish.temperature >= GREEDY_BELOW]
    if drawn:
        index = torch.tensor(drawn, device=logits.device)
        weights = _weights(logits[index], [wishes[i] for i in drawn])
        tokens[index] = _draw(weights, [rows[i].random for i in drawn])
    chosen: list[int] = _list(tokens)
    reports: list[TokenLogprob | None] = [None] * len(rows)
    told = [i for i, wish in enumerate(wishes) if wish.logprobs is not None]
    if told:
        index = torch.tensor(told, device=logits.device)
        tops = [wishes[i].logprobs or 0 for i in told]
        for i, report in zip(told, logprobs(own[index], tokens[index], tops), strict=True):
            reports[i] = report
    return chosen, reports


def logprobs(logits: torch.Tensor, tokens: torch.Tensor, tops: Sequence[int]) -> list[TokenLogprob]:
    """What the model itself gives `tokens[i]` after `logits[i]`, with its `tops[i]` best alternatives."""
    normalizer = logits.logsumexp(-1, keepdim=True)
    actual: list[float] = _list((logits.gather(-1, tokens[:, None]) - normalizer)[:, 0])
    most = min(max(tops), logits.shape[-1])
    if not most:
        return [TokenLogprob(value) for value in actual]
    values, ids = logits.topk(most, dim=-1)
    best: list[list[float]] = _list(values - normalizer)
    names: list[list[int]] = _list(ids)
    return [
        TokenLogprob(value, tuple(zip(name[:top], row[:top], strict=True)))
        for value, name, row, top in zip(actual, names, best, tops, strict=True)
    ]


def ranked(logits: torch.Tensor, tokens: torch.Tensor, top: int) -> list[TokenLogprob]:
    """The same for a prompt's tokens, each with its rank."""
    found = logprobs(logits, tokens, [top] * len(tokens))
    above: list[int] = _list((logits > logits.gather(-1, tokens[:, None])).sum(-1))
    return [TokenLogprob(each.logprob, each.top, rank + 1) for each, rank in zip(found, above, strict=True)]


def _apply(row: Row, rules: LogitRules, line: torch.Tensor) -> None:
    """On a CPU the array is the tensor's own memory; from a GPU one line goes there and back."""
    array = line.cpu().numpy()
    try:
        rules.apply(array)
    except GatewayError as error:
        row.failure = error
    if line.device.type != "cpu":
        line.copy_(torch.from_numpy(array))  # pyright: ignore[reportUnknownMemberType]


def _list(tensor: torch.Tensor) -> Any:
    return tensor.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _weights(logits: torch.Tensor, wishes: Sequence[Sampling]) -> torch.Tensor:
    """What each token is drawn by, `[rows, vocab]`: temperature, then min_p, then top_k, then top_p. 0: never."""
    device, vocab = logits.device, logits.shape[-1]
    scaled = logits / torch.tensor([wish.temperature for wish in wishes], device=device)[:, None]
    if any(wish.min_p > 0 for wish in wishes):
        least = torch.tensor([math.log(wish.min_p) if wish.min_p > 0 else -math.inf for wish in wishes], device=device)
        scaled = scaled.masked_fill(scaled < scaled.amax(-1, keepdim=True) + least[:, None], -math.inf)
    free = [i for i, wish in enumerate(wishes) if wish.top_k <= 0 and wish.top_p >= 1.0]
    if len(free) == len(wishes):
        return scaled.softmax(-1)
    weights = torch.zeros_like(scaled)
    if free:
        index = torch.tensor(free, device=device)
        weights[index] = scaled[index].softmax(-1)
    bound = sorted(set(range(len(wishes))) - set(free))
    index = torch.tensor(bound, device=device)
    top_k = torch.tensor([wishes[i].top_k if wishes[i].top_k > 0 else vocab for i in bound], device=device)[:, None]
    top_p = torch.tensor([wishes[i].top_p for i in bound], device=device)[:, None]
    limited = [wishes[i].top_k for i in bound if wishes[i].top_k > 0]
    count = min(vocab, max([CANDIDATES, *limited]))
    kept, ids = _filter(scaled[index], top_k, top_p, count)
    if kept is None:
        kept, ids = _filter(scaled[index], top_k, top_p, vocab)
    if kept is not None:
        weights[index] = weights[index].scatter(-1, ids, kept)
    return weights


def _filter(
    scaled: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, count: int
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Probabilities of the `count` likeliest tokens, best first, those beyond top_k, then top_p, at 0; and their ids.

    None where a row's top_p reaches beyond the `count` likeliest.
    """
    values, ids = scaled.topk(count, dim=-1)
    within = torch.arange(count, device=scaled.device)[None] < top_k
    values = values.masked_fill(~within, float("-inf"))
    # Where top_k cuts, top_p is a share of what it left; elsewhere, of the whole vocabulary.
    cut = top_k <= count
    normalizer = torch.where(cut, values.logsumexp(-1, keepdim=True), scaled.logsumexp(-1, keepdim=True))
    probabilities = (values - normalizer).exp()
    before = probabilities.cumsum(-1) - probabilities
    if count < scaled.shape[-1] and bool((~cut & (before[:, -1:] < top_p)).any()):
        return None, ids
    keep = before < top_p
    keep[:, 0] = True
    return probabilities.masked_fill(~keep, 0.0), ids


def _draw(weights: torch.Tensor, generators: Sequence[np.random.Generator]) -> torch.Tensor:
    """One token of each row, by its share of the row's weights.

    The largest of weight / exponential noise wins with just that share (the exponential race). First the blocks race,
    then the tokens of the one that won. A seed must repeat its answer although the last bits of a logit depend on who
    else is in the batch: they decide a race only where two are level, but they move the place in a running sum of
    probabilities by as much as an unlikely token is wide.
    """
    rows, vocab = weights.shape
    blocks = torch.nn.functional.pad(weights, (0, -vocab % BLOCK)).view(rows, -1, BLOCK)
    count = blocks.shape[1]
    noise = np.stack([generator.standard_exponential(count + BLOCK) for generator in generators])
    spread = torch.from_numpy(noise).to(weights)  # pyright: ignore[reportUnknownMemberType]
    block = (blocks.sum(-1) / spread[:, :count]).argmax(-1)
    inside = blocks[torch.arange(rows, device=weights.device), block]
    return block * BLOCK + (inside / spread[:, count:]).argmax(-1)
