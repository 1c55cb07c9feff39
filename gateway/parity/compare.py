"""Sets what two models made of the same prompts beside each other: pure functions over readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from gateway.errors import ConfigError
from gateway.parity.reading import Reading


class PromptPair(msgspec.Struct, frozen=True):
    """One prompt, two models."""

    label: str
    divergence: int | None
    """The first position at which the greedy tokens differ; None: they are the same to their end."""
    compared: int
    """Tokens up to there."""
    prompt_deltas: Sequence[float]
    """|Δ log-probability| of every prompt token but the first."""
    made_deltas: Sequence[float]
    """|Δ log-probability| of every greedy token before they part."""


class Pair(msgspec.Struct, frozen=True):
    """Two models over all prompts. A delta of None: there was nothing to compare."""

    first: str
    second: str
    identical: float
    """Share of prompts whose greedy tokens are the same to their end."""
    earliest: int | None
    """The first position at which any two texts part."""
    prompt_max: float | None
    prompt_mean: float | None
    made_max: float | None
    made_mean: float | None
    prompts: Sequence[PromptPair]


def check_tokens(labels: Sequence[str], tokens: Mapping[str, Sequence[Sequence[int]]]) -> None:
    """Raises ConfigError where two models do not read a prompt as the same tokens: they serve different models."""
    (first, ones), *rest = tokens.items()
    for second, others in rest:
        for label, one, other in zip(labels, ones, others, strict=True):
            _check(first, second, label, one, other)


def compare(first: str, second: str, labels: Sequence[str], one: Sequence[Reading], other: Sequence[Reading]) -> Pair:
    """Raises ConfigError where the two do not read the prompts as the same tokens: they serve different models."""
    rows = [_prompt(first, second, *row) for row in zip(labels, one, other, strict=True)]
    parted = [row.divergence for row in rows if row.divergence is not None]
    prompt = [delta for row in rows for delta in row.prompt_deltas]
    made = [delta for row in rows for delta in row.made_deltas]
    return Pair(
        first,
        second,
        identical=1 - len(parted) / len(rows),
        earliest=min(parted, default=None),
        prompt_max=max(prompt, default=None),
        prompt_mean=_mean(prompt),
        made_max=max(made, default=None),
        made_mean=_mean(made),
        prompts=rows,
    )


def _prompt(first: str, second: str, label: str, one: Reading, other: Reading) -> PromptPair:
    _check(first, second, label, one.prompt, other.prompt)
    # Two tokens may have one text: ids say more, where both tell them.
    told = one.ids is not None and other.ids is not None
    these, those = (one.ids, other.ids) if told else (one.texts, other.texts)
    shorter = min(len(one.texts), len(other.texts))
    pairs = enumerate(zip(these or (), those or (), strict=False))
    same = next((at for at, (a, b) in pairs if a != b), shorter)
    ended = same == len(one.texts) == len(other.texts)
    return PromptPair(
        label,
        divergence=None if ended else same,
        compared=same,
        prompt_deltas=[abs(a - b) for a, b in zip(one.scores, other.scores, strict=True)],
        made_deltas=[abs(a - b) for a, b in zip(one.logprobs[:same], other.logprobs[:same], strict=True)],
    )


def _check(first: str, second: str, label: str, one: Sequence[int], other: Sequence[int]) -> None:
    if list(one) != list(other):
        raise ConfigError(f"{first} and {second} read {label!r} as different tokens: they serve different models")


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
