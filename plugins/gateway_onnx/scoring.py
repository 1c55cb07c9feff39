"""Log-probabilities of given tokens: prompts run through the graph in chunks, so that logits of a whole prompt are
never held at once. One prompt at a time, one chunk a step, so that running generations keep their pace."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gateway.engine import TokenLogprob
from gateway_onnx.batch import Emission
from gateway_onnx.cache import RowCache
from gateway_onnx.graph import DecoderGraph, Logits
from gateway_onnx.sampling import logprobs_of


@dataclass(slots=True)
class Scoring:
    """One prompt being scored."""

    id: str
    prompt: Sequence[int]
    top: int
    adapter: str | None = None
    found: list[TokenLogprob | None] = field(default_factory=lambda: [None])
    """One entry a token so far; nothing stands before the first."""

    @property
    def over(self) -> bool:
        return len(self.found) >= len(self.prompt)


class Scorer:
    """Works through scorings in the order they came, on a row of its own."""

    def __init__(self, graph: DecoderGraph, length: int, chunk: int) -> None:
        self._graph = graph
        self._chunk = chunk
        self._row: RowCache = graph.cache(1, length)
        self._logits: Logits = np.empty((chunk, graph.vocab_size), np.float32)
        self._waiting: deque[Scoring] = deque()

    def add(self, scoring: Scoring) -> None:
        self._waiting.append(scoring)

    def remove(self, id: str) -> None:
        self._waiting = deque(each for each in self._waiting if each.id != id)

    def works_for(self, adapter: str) -> list[str]:
        """Ids of the scorings by an adapter."""
        return [each.id for each in self._waiting if each.adapter == adapter]

    def busy(self) -> bool:
        return bool(self._waiting)

    def extend(self, row_cache: RowCache, row: int, tokens: Sequence[int], past: int) -> Logits:
        """Compute one row's tokens with their logits `[len(tokens), vocabulary]`, valid until the next call."""
        return self._graph.extend_with_logits(row_cache, row, tokens, past, self._logits)

    def step(self) -> list[Emission]:
        """Spend about one chunk of tokens: several short prompts, or a part of a long one."""
        emissions: list[Emission] = []
        budget = self._chunk
        while self._waiting and budget > 0:
            scoring = self._waiting[0]
            if not scoring.over:
                past = len(scoring.found) - 1
                # The last token's own logits speak of what comes after the prompt: nobody asks.
                count = min(budget, len(scoring.prompt) - 1 - past)
                tokens = scoring.prompt[past : past + count]
                self._graph.plan([scoring.adapter])
                logits = self._graph.extend_with_logits(self._row, 0, tokens, past, self._logits)
                scoring.found += logprobs_of(
                    logits, scoring.prompt[past + 1 : past + 1 + count], scoring.top, ranked=True
                )
                budget -= count
            if scoring.over:
                self._waiting.popleft()
                self._row.trim(0, self._chunk, len(scoring.prompt))
                emissions.append(Emission(scoring.id, scores=scoring.found))
        return emissions
