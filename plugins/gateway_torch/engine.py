"""The typed engine over the scheduler: checks what is asked, hands rows over, reads tokens back. Never computes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from gateway.engine import Delta, Generation, Tokenizer, TokenLogprob
from gateway.errors import ContextOverflow, InvalidRequest, ModelNotFound
from gateway.logits import LogitRules
from gateway_torch.row import Row

if TYPE_CHECKING:
    from gateway_torch.scheduler import Scheduler


class TorchEngine:
    """A `gateway.engine.AdapterEngine`."""

    scores_prompts = True

    def __init__(self, scheduler: Scheduler, tokenizer: Tokenizer, max_model_len: int, vocab_size: int) -> None:
        self.tokenizer = tokenizer
        self.max_model_len = max_model_len
        self.adapters: set[str] = set()
        """Ids of what is loaded; the backend's to change."""
        self._scheduler = scheduler
        self._vocab_size = vocab_size

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta]:
        """Continue one sequence; see `gateway.engine.TextEngine`. Raises BackendFailed where a step failed."""
        self._check(generation.prompt, generation.sampling.max_tokens, generation.adapter)
        rules = LogitRules.of(generation, self.tokenizer.eos_token_ids, self._vocab_size)
        top = generation.prompt_logprobs
        scored = top is not None
        row = Row(list(generation.prompt), generation.sampling, rules, scored, generation.adapter, top or 0)
        self._scheduler.submit(row)
        try:
            while True:
                delta = await row.read()
                yield delta
                if delta.finish_reason is not None:
                    return
        finally:
            row.cancelled = True

    async def score(self, prompt: Sequence[int], top: int, adapter: str | None = None) -> list[TokenLogprob | None]:
        """Log-probabilities of a prompt's tokens. Prompts are computed piece by piece, beside those that generate."""
        self._check(prompt, 0, adapter)
        if len(prompt) == 1:
            return [None]
        row = Row(list(prompt), None, adapter=adapter, top=top)
        self._scheduler.submit(row)
        try:
            await row.read()
        finally:
            row.cancelled = True
        return row.scores

    def _check(self, prompt: Sequence[int], more: int, adapter: str | None) -> None:
        if adapter is not None and adapter not in self.adapters:
            raise ModelNotFound(f"the torch engine has no adapter {adapter!r}", param="model")
        # One row's bad id would fail the step that it shares with all others.
        if not prompt:
            raise InvalidRequest("the prompt is empty")
        if min(prompt) < 0 or max(prompt) >= self._vocab_size:
            raise InvalidRequest(f"token ids must be 0 to {self._vocab_size - 1}")
        if len(prompt) + more > self.max_model_len:
            raise ContextOverflow(
                f"{len(prompt)} prompt tokens and {more} more do not fit the context of {self.max_model_len}"
            )
