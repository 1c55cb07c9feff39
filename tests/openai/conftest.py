"""An engine that says what a test tells it, delta by delta: for what no well-behaved engine would do on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from gateway.engine import Delta, EngineInfo, Generation, Tokenizer, TokenLogprob
from gateway.openai import build_app
from gateway.testing import AppClient
from gateway_echo.tokenizer import ByteTokenizer

Said = Delta | Exception | float
"""A delta, an error to raise, or seconds to wait."""

Saying = Said | Callable[[Generation], Said]
"""The same, where copies of one request are told different things."""


class DictatedEngine:
    """A `TextEngine` whose every answer is dictated."""

    def __init__(self, sayings: Sequence[Saying], scores: Sequence[TokenLogprob | None] = ()) -> None:
        self.tokenizer: Tokenizer = ByteTokenizer()
        self.max_model_len = 1000
        self.asked: list[Generation] = []
        self.running = 0
        self.closed = 0
        self._sayings = sayings
        self._scores = scores

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta]:
        self.asked.append(generation)
        self.running += 1
        try:
            for saying in self._sayings:
                if callable(saying):
                    saying = saying(generation)
                if isinstance(saying, Exception):
                    raise saying
                if isinstance(saying, float):
                    await asyncio.sleep(saying)
                else:
                    yield saying
        finally:
            self.running -= 1
            self.closed += 1

    async def score(self, prompt: Sequence[int], top: int) -> list[TokenLogprob | None]:
        if not self._scores:
            return [None, *[TokenLogprob(-1.0)] * (len(prompt) - 1)]
        return list(self._scores)


Dictate = Callable[..., tuple[DictatedEngine, AppClient]]


@pytest.fixture
def dictate() -> Dictate:
    """An engine that says these things, and a client of its endpoints."""

    def make(*sayings: Saying, scores: Sequence[TokenLogprob | None] = ()) -> tuple[DictatedEngine, AppClient]:
        engine = DictatedEngine(sayings, scores)
        return engine, AppClient(build_app(engine, EngineInfo("m", engine="dictated")))

    return make
