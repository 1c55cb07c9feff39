"""Continuous batching over one graph: sequences join and leave between any two steps. Knows neither asyncio nor HTTP.

Prompts are computed in chunks between steps, without logits; a prompt's last token goes through the same step as
everybody's next token. Every matrix product treats rows apart, so neighbours change nobody's logits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.engine import FinishReason, Generation, TokenLogprob
from gateway.errors import GatewayError, Unsupported
from gateway.logits import LogitRules
from gateway_onnx.batch import Emission, require_tokens
from gateway_onnx.graph import DecoderGraph, Logits
from gateway_onnx.lora_files import LowRank
from gateway_onnx.rows import Rows, Running
from gateway_onnx.sampling import Sampler, logprob_of, logprobs_of
from gateway_onnx.scoring import Scorer, Scoring

_GROWTH = 64
"""Tokens that each running sequence may still add when another is let in."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much is done together."""

    rows: int
    chunk: int
    """Prompt tokens between two steps."""
    cache_bytes: float
    """What keys and values may take together."""
    max_model_len: int
    eos: frozenset[int]


class ContinuousBatch:
    """The CPU's batch. Implements Batch."""

    def __init__(self, graph: DecoderGraph, limits: BatchLimits) -> None:
        self._graph = graph
        self._limits = limits
        self._cache = graph.cache(limits.rows, limits.max_model_len)
        self._rows = Rows(self._cache)
        self._room = max(int(limits.cache_bytes / self._cache.token_bytes), limits.max_model_len)
        """Tokens whose keys and values may be held."""
        self._logits: Logits = np.empty((limits.rows, graph.vocab_size), np.float32)
        self._scorer = Scorer(graph, limits.max_model_len, limits.chunk)
        self._waiting: deque[Running] = deque()
        self._turns = 0
        self._scores_next = False

    def generate(self, generation: Generation) -> None:
        require_tokens(generation.prompt, self._graph.vocab_size)
        self._turns += 1
        sampler = Sampler(generation.sampling)
        rules = LogitRules.of(generation, self._limits.eos, self._graph.vocab_size)
        self._waiting.append(
            Running(
                generation,
                self._turns,
                sampler,
                list(generation.prompt),
                rules,
                None if generation.prompt_logprobs is None else [None],
            )
        )

    def score(self, id: str, prompt: Sequence[int], top: int, adapter: str | None = None) -> None:
        require_tokens(prompt, self._graph.vocab_size)
        self._scorer.add(Scoring(id, prompt, top, adapter))

    def load(self, adapter: str, matrices: LowRank) -> None:
        if self._graph.adapters is None:
            raise Unsupported("this onnx graph was opened without room for adapters", param="model")
        self._graph.adapters.add(adapter, matrices)

    def unload(self, adapter: str) -> None:
        filling = [self._rows.filling] if self._rows.filling is not None else []
        running = [each.generation for each in [*self._waiting, *filling, *self._rows.sequences]]
        for work in [each.id for each in running if each.adapter == adapter] + self._scorer.works_for(adapter):
            self.remove(work)
        if self._graph.adapters is not None:
            self._graph.adapters.remove(adapter)

    def remove(self, id: str) -> None:
        self._scorer.remove(id)
        self._waiting = deque(each for each in self._waiting if each.generation.id != id)
        filling = [self._rows.filling] if self._rows.filling is not None else []
        for sequence in [*filling, *self._rows.sequences]:
            if sequence.generation.id == id:
                self._rows.leave(sequence)

    def busy(self) -> bool:
        return bool(self._rows.running or self._waiting or self._rows.filling or self._scorer.busy())

    def step(self) -> list[Emission]:
        """One token for every running sequence; before it, one chunk of prompts or of scorings, in turn."""
        emissions: list[Emission] = []
        if self._scorer.busy() and (self._scores_next or not (self._rows.filling or self._waiting)):
            emissions += self._scorer.step()
            self._scores_next = False
        else:
            self._fill()
            self._scores_next = True
        self._make_room()
        return emissions + self._decode() if self._rows.running else emissions

    def close(self) -> None:
        self._waiting.clear()
        self._rows = Rows(self._cache)
        self._graph.close()

    def _fill(self) -> None:
        budget = self._limits.chunk
        while budget > 0:
            if self._rows.filling is None:
                if not self._waiting or not self._rows.has_place() or not self._has_room_for(self._waiting[0]):
                    return
                self._rows.fill(self._waiting.popleft())
            sequence = self._rows.filling
            if sequence is None:
                return
            begin, end = sequence.computed, min(len(sequence.tokens) - 1, sequence.computed + budget)
            if end > begin:
                row = self._rows.places.index(sequence)
                self._graph.plan([sequence.generation.adapter])
                if sequence.scores is None:
                    self._graph.extend(self._cache, row, sequence.tokens[begin:end], begin)
                else:
                    self._score(sequence, row, begin, end)
                sequence.computed = end
                budget -= end - begin
            if sequence.computed == len(sequence.tokens) - 1:
                self._rows.join()

    def _score(self, sequence: Running, row: int, begin: int, end: int) -> None:
        tokens = sequence.tokens
        logits = self._scorer.extend(self._cache, row, tokens[begin:end], begin)
        # One that was sent back to wait begins anew.
        told = sequence.scores[: begin + 1] if sequence.scores else []
        sequence.scores = [
            *told,
            *logprobs_of(logits, tokens[begin + 1 : end + 1], sequence.generation.prompt_logprobs or 0, ranked=True),
        ]

    def _has_room_for(self, sequence: Running) -> bool:
        # With room to grow for everybody, or the newcomer would be sent back to wait in the very next steps.
        growth = _GROWTH * (self._rows.running + 1)
        return self._rows.running == 0 or self._rows.used() + len(sequence.tokens) + growth <= self._room

    def _make_room(self) -> None:
        """Where keys and values outgrow their share, leftovers go first; then the youngest sequence waits and is
        computed anew: slower, not different."""
        rows = self._rows
        while rows.used() + rows.running + rows.kept() > self._room:
            if rows.forget():
                continue
            if rows.running <= 1:
                return
            youngest = max(rows.sequences, key=lambda each: each.turn)
            rows.leave(youngest)
            rows.drop(youngest)
            youngest.computed = 0
            self._waiting.appendleft(youngest)

    def _decode(self) -> list[Emission]:
        running = self._rows.sequences
        tokens = [each.tokens[-1] for each in running]
        self._graph.plan([each.generation.adapter for each in running])
        logits = self._graph.decode(self._cache, tokens, [len(each.tokens) for each in running], self._logits)
        emissions = [self._next(sequence, logits[row]) for row, sequence in enumerate(running)]
        for sequence, emission in zip(running, emissions, strict=True):
            if emission.finish_reason is not None or emission.error is not None:
                self._rows.leave(sequence)
        return emissions

    def _next(self, sequence: Running, logits: Logits) -> Emission:
        try:
            return self._advance(sequence, logits)
        except GatewayError as error:
            # A grammar that can go no further ends its own sequence, not its neighbours'.
            return Emission(sequence.generation.id, error=error)

    def _advance(self, sequence: Running, logits: Logits) -> Emission:
        sampling, rules = sequence.generation.sampling, sequence.rules
        own = logits
        if rules is not None:
            # Log-probabilities are those of the model's own distribution.
            logits = logits.copy() if sampling.logprobs is not None else logits
            rules.apply(logits)
        token = sequence.sampler.choose(logits)
        if rules is not None:
            rules.accept(token)
        logprobs: list[TokenLogprob] | None = None
        if sampling.logprobs is not None:
            logprobs = [logprob_of(own, token, sampling.logprobs)]
        sequence.computed = len(sequence.tokens)
        sequence.tokens.append(token)
        sequence.produced += 1
        finish: FinishReason | None = None
        if (token in self._limits.eos and not sampling.ignore_eos) or token in sampling.stop_token_ids:
            finish = "stop"
        elif sequence.produced >= sampling.max_tokens or len(sequence.tokens) >= self._limits.max_model_len:
            finish = "length"
        # After a preemption more than the prompt may have been found: only the prompt's part, and only once, is told.
        scores, sequence.scores = sequence.scores, None
        cached = min(sequence.reused, len(sequence.generation.prompt)) if sequence.produced == 1 else 0
        return Emission(sequence.generation.id, (token,), logprobs, finish, cached, prompt_logprobs=scores)
