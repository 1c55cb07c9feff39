"""onnxruntime-genai's own Engine behind the same face. Where the graph is paged (CUDA) it batches continuously; on a
CPU it computes fixed batches of four, and whoever comes later waits for all four. Knows neither asyncio nor HTTP.

The Engine shows no logits: answers that need log-probabilities are held until they are whole and then scored by the
graph itself, so that every number is the model's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from gateway.engine import FinishReason, Generation, TokenLogprob, refuse_rules
from gateway.errors import BackendFailed, Unsupported
from gateway_onnx.batch import Emission, require_tokens
from gateway_onnx.lora_files import LowRank
from gateway_onnx.options import Plan
from gateway_onnx.scoring import Scorer, Scoring


@dataclass(slots=True)
class _Turn:
    """One generation inside the Engine."""

    generation: Generation
    request: Any
    turn_id: int
    made: list[int] = field(default_factory=list[int])
    finish_reason: FinishReason | None = None


class GenaiBatch:
    """Implements Batch over `onnxruntime_genai.Engine`."""

    def __init__(
        self, folder: Path, made: Plan, max_model_len: int, eos: frozenset[int], scorer: Callable[[], Scorer] | None
    ) -> None:
        """`scorer` opens the graph for scoring when it is first needed; None where this graph cannot be scored."""
        self._library: Any = import_module("onnxruntime_genai")
        self._library.disable_telemetry_events()
        config: Any = self._library.Config(str(folder))
        overlay: dict[str, Any] = {"model": {"decoder": {"session_options": {"intra_op_num_threads": made.threads}}}}
        if made.provider == "cuda":
            config.clear_providers()
            config.append_provider("cuda")
        else:
            overlay["engine"] = {"static_batching": {"max_batch_size": made.options.max_batch_size}}
        config.overlay(json.dumps(overlay))
        self._model: Any = self._library.Model(config)
        self._engine: Any = self._library.Engine(self._model)
        self._events: Any = self._engine.create_event_buffer(4 * made.options.max_batch_size)
        self._vocab_size = int(
            json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["vocab_size"]
        )
        self._max_model_len = max_model_len
        self._paged = made.provider == "cuda"
        self._eos = eos
        self._open_scorer = scorer
        self._scorer: Scorer | None = None
        self._turns: dict[str, _Turn] = {}
        self._held: dict[str, _Turn] = {}
        """Whole answers whose log-probabilities are being computed."""

    def generate(self, generation: Generation) -> None:
        require_tokens(generation.prompt, self._vocab_size)
        if generation.sampling.logprobs is not None:
            self._need_scorer("logprobs")
        sampling = generation.sampling
        refuse_rules(generation, "onnx (`batching: genai`)")
        if sampling.min_p:
            raise Unsupported("onnx with `batching: genai` does not support `min_p`", param="min_p")
        if sampling.seed is not None and sampling.temperature > 0 and not self._paged:
            raise Unsupported("onnx with `batching: genai` takes no seed on a CPU; `batching: rows` does", param="seed")
        options: Any = self._library.RequestOptions()
        options.set_max_session_tokens(min(self._max_model_len, len(generation.prompt) + sampling.max_tokens))
        request: Any = self._engine.create_request(options=options)
        turn: Any = self._library.TurnOptions(request)
        turn.set_max_generated_tokens(sampling.max_tokens)
        if sampling.ignore_eos:
            turn.set_min_generated_tokens(sampling.max_tokens)
        greedy = sampling.temperature <= 0
        turn.set_do_sample(not greedy)
        if not greedy:
            turn.set_temperature(sampling.temperature)
            turn.set_top_p(sampling.top_p)
            turn.set_top_k(sampling.top_k)
            if sampling.seed is not None:
                turn.set_seed(sampling.seed % 2**31)
        try:
            turn_id = request.begin_turn(np.asarray(generation.prompt, np.int32), turn)
        except RuntimeError as error:
            request.close()
            raise BackendFailed(f"onnxruntime-genai: {error}") from error
        self._turns[generation.id] = _Turn(generation, request, turn_id)

    def load(self, adapter: str, matrices: LowRank) -> None:
        raise Unsupported("onnx with `batching: genai` takes no adapters; `batching: rows` does", param="model")

    def unload(self, adapter: str) -> None:
        """There are none."""

    def score(self, id: str, prompt: Sequence[int], top: int, adapter: str | None = None) -> None:
        require_tokens(prompt, self._vocab_size)
        self._need_scorer("prompt log-probabilities").add(Scoring(id, prompt, top))

    def remove(self, id: str) -> None:
        self._held.pop(id, None)
        if self._scorer is not None:
            self._scorer.remove(id)
        if (turn := self._turns.pop(id, None)) is not None:
            turn.request.cancel_turn(turn.turn_id)
            turn.request.close()

    def busy(self) -> bool:
        return bool(self._turns) or (self._scorer is not None and self._scorer.busy())

    def step(self) -> list[Emission]:
        emissions: list[Emission] = []
        if self._scorer is not None and self._scorer.busy():
            emissions += [self._scored(each) for each in self._scorer.step()]
        if self._turns:
            by_request = {id(turn.request): turn for turn in self._turns.values()}
            for event in self._engine.run(self._events):
                turn = by_request.get(id(event.request)) or self._turn_of(event.request)
                if turn is not None and (emission := self._taken(turn, event)) is not None:
                    emissions.append(emission)
        return emissions

    def close(self) -> None:
        for work in list(self._turns):
            self.remove(work)
        self._scorer = None
        self._events = self._engine = self._model = None

    def _turn_of(self, request: Any) -> _Turn | None:
        return next((turn for turn in self._turns.values() if turn.request == request), None)

    def _taken(self, turn: _Turn, event: Any) -> Emission | None:
        flags, kinds = int(event.flags), self._library.EngineEventFlags
        if flags & int(kinds.FAILED):
            self.remove(turn.generation.id)
            return Emission(turn.generation.id, error=BackendFailed(f"onnxruntime-genai: {event.error_code.name}"))
        new: list[int] = []
        if flags & int(kinds.TOKEN):
            new.append(int(event.token))
            turn.made += new
        if flags & int(kinds.TURN_FINISHED):
            self._turns.pop(turn.generation.id)
            stopped = event.finish_reason == self._library.FinishReason.EOS
            turn.finish_reason = "stop" if stopped else "length"
            if stopped and not new and len(self._eos) == 1:
                # The Engine keeps the end token to itself; where there is only one, we know which it was.
                new = list(self._eos)
                turn.made += new
            turn.request.close()
        elif not new:
            return None
        if (top := turn.generation.sampling.logprobs) is None:
            return Emission(turn.generation.id, new, None, turn.finish_reason)
        if turn.finish_reason is not None:
            self._held[turn.generation.id] = turn
            whole = [*turn.generation.prompt, *turn.made]
            self._need_scorer("logprobs").add(Scoring(turn.generation.id, whole, top))
        return None

    def _scored(self, emission: Emission) -> Emission:
        """A held answer is released with its own positions; a prompt's scoring passes as it is."""
        turn = self._held.pop(emission.id, None)
        if turn is None:
            return emission
        scores = [each for each in (emission.scores or ())[len(turn.generation.prompt) :] if each is not None]
        logprobs: list[TokenLogprob] = scores
        return Emission(emission.id, turn.made, logprobs, turn.finish_reason)

    def _need_scorer(self, what: str) -> Scorer:
        if self._scorer is None:
            if self._open_scorer is None:
                raise Unsupported(f"onnx with onnxruntime-genai's Engine on a GPU cannot give {what}")
            self._scorer = self._open_scorer()
        return self._scorer
