"""What the engine's thread drives: something that computes many sequences together, one step at a time. Knows neither
asyncio nor HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.engine import FinishReason, Generation, TokenLogprob
from gateway.errors import InvalidRequest
from gateway_onnx.lora_files import LowRank


@dataclass(frozen=True, slots=True)
class Emission:
    """What one step brought to one piece of work."""

    id: str
    tokens: Sequence[int] = ()
    logprobs: Sequence[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0
    scores: Sequence[TokenLogprob | None] | None = None
    """The whole result of a scoring; such an emission has nothing else."""
    prompt_logprobs: Sequence[TokenLogprob | None] | None = None
    """The prompt's scores, with a generation's first token, where it asked."""
    error: Exception | None = None
    """This piece of work is over and has failed; its neighbours have not."""


def require_tokens(prompt: Sequence[int], vocab_size: int) -> None:
    """An id outside the vocabulary would fail the whole batch: raises InvalidRequest instead."""
    if not prompt:
        raise InvalidRequest("the prompt holds no token", param="prompt")
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        raise InvalidRequest(f"the prompt holds token ids outside 0…{vocab_size - 1}", param="prompt")


class Batch(Protocol):
    """Every call comes from one thread. An exception from `step` means that the engine is dead."""

    def generate(self, generation: Generation) -> None:
        """Take a sequence in; it waits for a place inside. Raises InvalidRequest for tokens the model does not have."""
        ...

    def score(self, id: str, prompt: Sequence[int], top: int, adapter: str | None = None) -> None:
        """Take a scoring in. Raises Unsupported where the engine cannot."""
        ...

    def load(self, adapter: str, matrices: LowRank) -> None:
        """Place an adapter. Raises AdapterError where it does not fit, Unsupported where there are none."""
        ...

    def unload(self, adapter: str) -> None:
        """Forget an adapter, and whatever work of it is left."""
        ...

    def remove(self, id: str) -> None:
        """Forget a piece of work, whatever its state; unknown ids are fine."""
        ...

    def busy(self) -> bool:
        """Whether `step` has anything to do."""
        ...

    def step(self) -> list[Emission]: ...

    def close(self) -> None: ...
