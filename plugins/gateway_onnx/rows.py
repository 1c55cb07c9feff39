"""Continuous batching over one graph: sequences join and leave between any two steps, each in a row of the cache.
Knows neither asyncio nor HTTP.

The running sequences always fill rows 0…n-1, so that a step reads and writes the cache where it lies. Prompts are
computed in chunks between steps, without logits; a prompt's last token goes through the same step as everybody's next
token. Every matrix product treats rows apart, so neighbours change nobody's logits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gateway.engine import FinishReason, Generation, TokenLogprob
from gateway_onnx.batch import Emission, require_tokens
from gateway_onnx.graph import DecoderGraph, Logits
from gateway_onnx.sampling import Sampler, logprob_of
from gateway_onnx.scoring import Scorer, Scoring

_KEPT = 256
"""Tokens whose pages an empty row keeps for the next sequence; what lies behind goes back to the system."""

_GROWTH = 64
"""Tokens that each running sequence may still add when another is let in."""


@dataclass(slots=True)
class Running:
    """One generation under way."""

    generation: Generation
    turn: int
    """Its place in the order of arrival."""
    sampler: Sampler
    tokens: list[int]
    """Prompt and answer so far."""
    computed: int = 0
    """How many of them have keys and values."""
    produced: int = 0


@dataclass(slots=True)
class _Filling:
    """The sequence whose prompt is being computed, and the row it is computed in."""

    sequence: Running
    row: int


@dataclass(slots=True)
class RowLimits:
    """How much is done together."""

    rows: int
    chunk: int
    """Prompt tokens between two steps."""
    cache_bytes: float
    """What the rows' keys and values may take together."""
    max_model_len: int
    eos: frozenset[int] = field(default_factory=frozenset[int])


class RowBatch:
    """The CPU's batch. Implements Batch."""

    def __init__(self, graph: DecoderGraph, limits: RowLimits) -> None:
        self._graph = graph
        self._limits = limits
        self._cache = graph.cache(limits.rows, limits.max_model_len)
        self._room = max(int(limits.cache_bytes / self._cache.token_bytes), limits.max_model_len)
        self._logits: Logits = np.empty((limits.rows, graph.vocab_size), np.float32)
        self._scorer = Scorer(graph, limits.max_model_len, limits.chunk)
        self._waiting: deque[Running] = deque()
        self._filling: _Filling | None = None
        self._running: list[Running] = []
        self._turns = 0
        self._scores_next = False

    def generate(self, generation: Generation) -> None:
        require_tokens(generation.prompt, self._graph.vocab_size)
        self._turns += 1
        sampler = Sampler(generation.sampling)
        self._waiting.append(Running(generation, self._turns, sampler, list(generation.prompt)))

    def score(self, id: str, prompt: Sequence[int], top: int) -> None:
        require_tokens(prompt, self._graph.vocab_size)
        self._scorer.add(Scoring(id, prompt, top))

    def remove(self, id: str) -> None:
        self._scorer.remove(id)
        self._waiting = deque(each for each in self._waiting if each.generation.id != id)
        if self._filling is not None and self._filling.sequence.generation.id == id:
            self._cache.trim(self._filling.row, _KEPT, self._filling.sequence.computed)
            self._filling = None
        for row, sequence in enumerate(self._running):
            if sequence.generation.id == id:
                self._vacate(row)
                return

    def busy(self) -> bool:
        return bool(self._running or self._waiting or self._filling or self._scorer.busy())

    def step(self) -> list[Emission]:
        """One token for every running sequence; before it, one chunk of prompts or of scorings, in turn."""
        emissions: list[Emission] = []
        prompts = bool(self._filling or self._waiting)
        if self._scorer.busy() and (self._scores_next or not prompts):
            emissions += self._scorer.step()
            self._scores_next = False
        else:
            self._fill()
            self._scores_next = True
        self._make_room()
        return emissions + self._decode() if self._running else emissions

    def close(self) -> None:
        self._waiting.clear()
        self._running.clear()
        self._filling = None
        self._graph.close()

    def _fill(self) -> None:
        budget = self._limits.chunk
        while budget > 0:
            if self._filling is None:
                if not self._waiting or len(self._running) >= self._limits.rows:
                    return
                if self._running and not self._has_room_for(self._waiting[0]):
                    return
                self._filling = _Filling(self._waiting.popleft(), len(self._running))
            filling, sequence = self._filling, self._filling.sequence
            end = min(len(sequence.tokens) - 1, sequence.computed + budget)
            if end > sequence.computed:
                tokens = sequence.tokens[sequence.computed : end]
                self._graph.extend(self._cache, filling.row, tokens, sequence.computed)
                budget -= end - sequence.computed
                sequence.computed = end
            if sequence.computed == len(sequence.tokens) - 1:
                # Others may have left meanwhile, and the running rows moved up.
                row = len(self._running)
                self._cache.move(filling.row, row, sequence.computed)
                if row != filling.row:
                    self._cache.trim(filling.row, _KEPT, sequence.computed)
                self._running.append(sequence)
                self._filling = None

    def _has_room_for(self, sequence: Running) -> bool:
        # With room to grow for everybody, or the newcomer would be sent back to wait in the very next steps.
        growth = _GROWTH * (len(self._running) + 1)
        return self._used() + len(sequence.tokens) + growth <= self._room

    def _make_room(self) -> None:
        """Where keys and values outgrow their share, the youngest waits and is computed anew: slower, not different."""
        while len(self._running) > 1 and self._used() + len(self._running) > self._room:
            row = max(range(len(self._running)), key=lambda each: self._running[each].turn)
            sequence = self._running[row]
            self._vacate(row)
            sequence.computed = 0
            self._waiting.appendleft(sequence)

    def _used(self) -> int:
        filling = len(self._filling.sequence.tokens) if self._filling is not None else 0
        return filling + sum(len(each.tokens) for each in self._running)

    def _decode(self) -> list[Emission]:
        running = self._running
        tokens = [each.tokens[-1] for each in running]
        logits = self._graph.decode(self._cache, tokens, [len(each.tokens) for each in running], self._logits)
        emissions = [self._advance(sequence, logits[row]) for row, sequence in enumerate(running)]
        for row in range(len(emissions) - 1, -1, -1):
            if emissions[row].finish_reason is not None:
                self._vacate(row)
        return emissions

    def _advance(self, sequence: Running, logits: Logits) -> Emission:
        sampling = sequence.generation.sampling
        token = sequence.sampler.choose(logits)
        logprobs: list[TokenLogprob] | None = None
        if sampling.logprobs is not None:
            logprobs = [logprob_of(logits, token, sampling.logprobs)]
        sequence.computed = len(sequence.tokens)
        sequence.tokens.append(token)
        sequence.produced += 1
        finish: FinishReason | None = None
        if token in self._limits.eos and not sampling.ignore_eos:
            finish = "stop"
        elif sequence.produced >= sampling.max_tokens or len(sequence.tokens) >= self._limits.max_model_len:
            finish = "length"
        return Emission(sequence.generation.id, (token,), logprobs, finish)

    def _vacate(self, row: int) -> None:
        """Take a sequence out; the last row moves into its place, so that no step computes for nobody."""
        gone, last = self._running[row], len(self._running) - 1
        mover = self._running.pop()
        if row != last:
            self._cache.move(last, row, mover.computed)
            self._running[row] = mover
        self._cache.trim(row, _KEPT if row == last else mover.computed, gone.computed)
        if row != last:
            self._cache.trim(last, _KEPT, mover.computed)
