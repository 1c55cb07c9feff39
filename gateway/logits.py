"""What a request, its own past and its grammar do to its next logits: the same arithmetic for every engine of ours.

In vLLM's order: the grammar, allowed tokens, end tokens that come too early, biases, penalties. Imports numpy, so
engines import it where they compute.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from gateway.engine import Constraint, Generation, changes_logits
from gateway.errors import InvalidRequest

Logits = NDArray[np.float32]


class LogitRules:
    """One sequence's. `apply` before each choice, `accept` after it."""

    __slots__ = (
        "_allowed",
        "_bias",
        "_bias_ids",
        "_constraint",
        "_counts",
        "_ends",
        "_made",
        "_mask",
        "_sampling",
        "_seen",
    )

    def __init__(self, generation: Generation, ends: Collection[int], vocab_size: int) -> None:
        """`ends`: the model's end tokens; `vocab_size`: how many logits a position has.

        Raises InvalidRequest, naming the field, for tokens that have no logit.
        """
        sampling = generation.sampling
        for name in ("logit_bias", "stop_token_ids", "allowed_token_ids"):
            tokens: Collection[int] = getattr(sampling, name) or ()
            if tokens and not 0 <= min(tokens) <= max(tokens) < vocab_size:
                raise InvalidRequest(f"`{name}`: token ids must be 0 to {vocab_size - 1}", param=name)
        self._sampling = sampling
        self._constraint: Constraint | None = generation.constraint
        self._mask: NDArray[np.int32] = np.zeros((vocab_size + 31) // 32, np.int32)
        self._allowed: NDArray[np.bool_] | None = None
        if sampling.allowed_token_ids is not None:
            self._allowed = np.zeros(vocab_size, np.bool_)
            self._allowed[list(sampling.allowed_token_ids)] = True
        stopping = {*ends, *sampling.stop_token_ids}
        # A tokenizer may name an end token that the model has no logit for.
        self._ends = np.array(sorted(token for token in stopping if token < vocab_size), np.int64)
        bias = sampling.logit_bias or {}
        self._bias_ids = np.array(list(bias), np.int64)
        self._bias = np.array(list(bias.values()), np.float32)
        self._made = 0
        self._counts: dict[int, int] = {}
        """How often each token was generated."""
        self._seen: dict[int, None] = dict.fromkeys(generation.prompt) if sampling.repetition_penalty != 1 else {}
        """Tokens of the prompt and the answer, each once."""

    @staticmethod
    def of(generation: Generation, ends: Collection[int], vocab_size: int) -> LogitRules | None:
        """The rules; None where the request has none, as nearly all."""
        if not changes_logits(generation):
            return None
        return LogitRules(generation, ends, vocab_size)

    def apply(self, logits: Logits) -> None:
        """Change `logits` `[vocabulary]` in place. Raises BackendFailed where a grammar cannot say what may follow,
        InvalidRequest where no token is left."""
        sampling = self._sampling
        if self._constraint is not None:
            self._constraint.allow(self._mask)
            bits = np.unpackbits(self._mask.view(np.uint8), count=logits.size, bitorder="little")
            np.putmask(logits, bits == 0, -np.inf)
        if self._allowed is not None:
            np.putmask(logits, ~self._allowed, -np.inf)
        early = self._made < sampling.min_tokens
        if early:
            kept = logits[self._ends]
            logits[self._ends] = -np.inf
            if self._constraint is not None and np.isneginf(logits.max()):
                # The text is complete and can only end: its grammar outweighs its length.
                logits[self._ends] = kept
        if (early or self._allowed is not None) and np.isneginf(logits.max()):
            name = "min_tokens" if self._allowed is None else "allowed_token_ids"
            raise InvalidRequest(f"`{name}` and what else is asked leave no token to choose from", param=name)
        if self._bias_ids.size:
            logits[self._bias_ids] += self._bias
        if sampling.repetition_penalty != 1 and self._seen:
            seen = np.fromiter(self._seen, np.int64, len(self._seen))
            values = logits[seen]
            penalty = np.float32(sampling.repetition_penalty)
            logits[seen] = np.where(values > 0, values / penalty, values * penalty)
        if self._counts and (sampling.frequency_penalty or sampling.presence_penalty):
            made = np.fromiter(self._counts, np.int64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
            logits[made] -= np.float32(sampling.frequency_penalty) * counts + np.float32(sampling.presence_penalty)

    def accept(self, token: int) -> None:
        """The token that was chosen. Raises BackendFailed where the grammar does not know it."""
        self._made += 1
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._sampling.repetition_penalty != 1:
            self._seen[token] = None
        if self._constraint is not None:
            self._constraint.accept(token)
