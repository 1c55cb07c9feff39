"""One sequence in the batch: what is asked of it, how far it is, and the way its tokens take back to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gateway.engine import Delta, FinishReason, Sampling, TokenLogprob
from gateway.errors import GatewayError
from gateway.logits import LogitRules


@dataclass(slots=True, eq=False)
class Row:
    """A sequence to be continued or, without `sampling`, a prompt to be scored.

    The scheduler's thread owns every field but two: `cancelled` is set by the event loop and only read by the thread;
    `_ready` belongs to the event loop, which the thread reaches through `call_soon_threadsafe`.
    """

    tokens: list[int]
    """The prompt, then what was generated."""
    sampling: Sampling | None
    rules: LogitRules | None = None
    """What its logits are changed by before a token is chosen."""
    scored: bool = False
    """Whether the prompt's tokens are still to be scored and told."""
    adapter: str | None = None
    """Id of what computes it beside the base."""
    top: int = 0
    """Alternatives to report at each position of a prompt that is scored."""
    arrival: int = 0
    """Order of arrival: the oldest are computed first, the youngest give way first."""
    prompt_length: int = field(init=False)
    computed: int = 0
    """How many tokens have their keys and values in the cache."""
    random: np.random.Generator = field(init=False)
    """A generator of its own: what runs beside a sequence cannot change its draws."""
    scores: list[TokenLogprob | None] = field(default_factory=lambda: [None])
    failure: GatewayError | None = None
    """Why its next token could not be chosen; this row ends with it, its neighbours go on."""
    cancelled: bool = False
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _ready: list[Delta | GatewayError] = field(default_factory=list[Delta | GatewayError])
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens)
        self.scored = self.scored or self.sampling is None
        seed = self.sampling.seed if self.sampling else None
        self.random = np.random.default_rng(None if seed is None else seed % 2**64)

    @property
    def pending(self) -> int:
        """Tokens still to be computed; 1 for a sequence in the midst of generating."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    def restart(self) -> None:
        """Forget what is in the cache; tokens, and the generator's state, stay."""
        self.computed = 0
        self.scores = [None]

    def post(self, item: Delta | GatewayError) -> None:
        """Hand something to the reader. Runs in the event loop."""
        self._ready.append(item)
        self._news.set()

    async def read(self) -> Delta:
        """What has come since the last read, joined. Raises the error that ended the sequence."""
        await self._news.wait()
        self._news.clear()
        items, self._ready = self._ready, []
        deltas = [item for item in items if isinstance(item, Delta)]
        if not deltas:
            # Only errors are left, and one ends the sequence.
            raise next(item for item in items if isinstance(item, GatewayError))
        if len(deltas) < len(items):
            # Tokens first: the error is for the next read.
            self._ready = [item for item in items if not isinstance(item, Delta)]
            self._news.set()
        return deltas[0] if len(deltas) == 1 else _join(deltas)


def _join(deltas: Sequence[Delta]) -> Delta:
    tokens: list[int] = []
    logprobs: list[TokenLogprob] = []
    finish: FinishReason | None = None
    for delta in deltas:
        tokens.extend(delta.token_ids)
        logprobs.extend(delta.logprobs or ())
        finish = delta.finish_reason
    return Delta(
        tokens, logprobs if deltas[0].logprobs is not None else None, finish, prompt_logprobs=deltas[0].prompt_logprobs
    )
