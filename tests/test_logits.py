"""The rules over logits, against the formulas written out token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from numpy.typing import NDArray

from gateway.engine import Generation, Sampling
from gateway.errors import InvalidRequest
from gateway.logits import LogitRules

VOCABULARY = 40
END = 39


def rules_of(prompt: list[int], constraint: Any = None, **sampling: Any) -> LogitRules:
    found = LogitRules.of(Generation("g", prompt, Sampling(99, **sampling), constraint), {END}, VOCABULARY)
    assert found is not None
    return found


def test_a_plain_request_has_no_rules() -> None:
    assert LogitRules.of(Generation("g", [1], Sampling(9, seed=3, top_p=0.5, min_p=0.1)), {END}, VOCABULARY) is None


@given(
    logits=some.lists(some.floats(-20, 20, width=32), min_size=VOCABULARY, max_size=VOCABULARY),
    prompt=some.lists(some.integers(0, VOCABULARY - 1), min_size=1, max_size=8),
    made=some.lists(some.integers(0, VOCABULARY - 1), max_size=8),
    repetition=some.floats(0.5, 2),
    frequency=some.floats(-2, 2),
    presence=some.floats(-2, 2),
    bias=some.dictionaries(some.integers(0, VOCABULARY - 1), some.floats(-100, 100), max_size=4),
)
def test_penalties_are_their_formulas(
    logits: list[float], prompt: list[int], made: list[int], repetition: float, frequency: float, presence: float,
    bias: dict[int, float],
) -> None:  # fmt: skip
    rules = rules_of(
        prompt, min_tokens=1, repetition_penalty=repetition, frequency_penalty=frequency, presence_penalty=presence,
        logit_bias=bias or None,
    )  # fmt: skip
    for token in made:
        rules.accept(token)
    found: NDArray[np.float32] = np.array(logits, np.float32)
    rules.apply(found)
    for token, value in enumerate(logits):
        if token == END and not made:
            value = -np.inf
        value += bias.get(token, 0)
        if token in prompt or token in made:
            value = value / repetition if value > 0 else value * repetition
        if token in made:
            value -= frequency * made.count(token) + presence
        assert found[token] == pytest.approx(value, rel=1e-4, abs=1e-4)


def test_only_allowed_tokens_are_left() -> None:
    logits = np.zeros(VOCABULARY, np.float32)
    rules_of([1], allowed_token_ids=(3, 35)).apply(logits)
    assert np.flatnonzero(np.isfinite(logits)).tolist() == [3, 35]


def test_ends_wait_for_min_tokens() -> None:
    rules = rules_of([1], min_tokens=2, stop_token_ids=(7,))
    for made in range(3):
        logits = np.zeros(VOCABULARY, np.float32)
        rules.apply(logits)
        assert np.flatnonzero(np.isinf(logits)).tolist() == ([7, END] if made < 2 else [])
        rules.accept(5)


class Even:
    """A grammar of even tokens."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def allow(self, mask: NDArray[np.int32]) -> None:
        mask[:] = np.int32(0x55555555)

    def accept(self, token_id: int) -> None:
        self.accepted.append(token_id)


def test_a_grammar_masks_and_follows() -> None:
    grammar = Even()
    rules = rules_of([1], grammar)
    logits = np.zeros(VOCABULARY, np.float32)
    rules.apply(logits)
    assert np.flatnonzero(np.isfinite(logits)).tolist() == list(range(0, VOCABULARY, 2))
    rules.accept(4)
    assert grammar.accepted == [4]


class Ended:
    """A grammar whose text is complete."""

    def allow(self, mask: NDArray[np.int32]) -> None:
        mask[:] = 0
        mask[END // 32] = np.int32(1 << END % 32)

    def accept(self, token_id: int) -> None:
        raise AssertionError(token_id)


def test_a_complete_text_ends_before_min_tokens() -> None:
    logits = np.zeros(VOCABULARY, np.float32)
    rules_of([1], Ended(), min_tokens=5).apply(logits)
    assert np.flatnonzero(np.isfinite(logits)).tolist() == [END]


@pytest.mark.parametrize(
    ("constraint", "sampling"),
    [(None, {"allowed_token_ids": (END,), "min_tokens": 1}), (Ended(), {"allowed_token_ids": (7,)})],
)
def test_where_no_token_is_left_the_request_is_at_fault(constraint: Any, sampling: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="allowed_token_ids"):
        rules_of([1], constraint, **sampling).apply(np.zeros(VOCABULARY, np.float32))


@pytest.mark.parametrize(
    "sampling",
    [
        {"logit_bias": {VOCABULARY: 1.0}},
        {"allowed_token_ids": (VOCABULARY,)},
        {"min_tokens": 1, "stop_token_ids": (-1,)},
    ],
)
def test_tokens_without_a_logit_are_refused(sampling: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="token ids must be 0 to 39"):
        rules_of([1], **sampling)
