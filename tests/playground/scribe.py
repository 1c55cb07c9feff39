"""A model without weights that keeps any grammar: writes the shortest text that is allowed. Without one it echoes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import numpy as np

from gateway.backend import Backend, BackendContext
from gateway.engine import Delta, Generation, Tokenizer, TokenLogprob
from gateway.openai import build_app, engine_info
from gateway.openai.guidance import Guidance, of_tokens
from gateway.types import ASGIApp, ModelCard
from gateway_echo.engine import EchoEngine
from gateway_echo.options import EchoOptions
from gateway_echo.tokenizer import ECHO, END, START, ByteTokenizer

_FIRST = [END, *b'"}],1:[{abcdefghijklmnopqrstuvwxyz']
"""What it would rather write than anything else, in this order: whatever closes comes first."""


class GuidedBytes(ByteTokenizer):
    """Bytes that grammars know."""

    def __init__(self) -> None:
        self.guidance: Guidance = of_tokens(self, [START, ECHO, END])


class ScribeEngine:
    """`gateway.engine.TextEngine`."""

    def __init__(self, delay_s: float) -> None:
        self.tokenizer: Tokenizer = GuidedBytes()
        self.max_model_len = 32768
        self.running = 0
        self._delay_s = delay_s
        self._echo = EchoEngine(EchoOptions(), self.max_model_len)

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta]:
        if generation.constraint is None:
            async for delta in self._echo.generate(generation):
                yield delta
            return
        self.running += 1
        try:
            mask = np.zeros((ByteTokenizer.vocab_size + 31) // 32, np.int32)
            for position in range(1, generation.sampling.max_tokens + 1):
                generation.constraint.allow(mask)
                token = _choose(mask)
                generation.constraint.accept(token)
                await asyncio.sleep(self._delay_s)
                last = position == generation.sampling.max_tokens
                yield Delta([token], None, "stop" if token == END else "length" if last else None)
                if token == END:
                    return
        finally:
            self.running -= 1

    async def score(self, prompt: Sequence[int], top: int) -> list[TokenLogprob | None]:
        return await self._echo.score(prompt, top)


def _choose(mask: np.ndarray) -> int:
    allowed = [token for token in range(ByteTokenizer.vocab_size) if mask[token // 32] >> (token % 32) & 1]
    return next((token for token in _FIRST if token in allowed), allowed[0])


class ScribeBackend(Backend):
    """Everything else is as echo does it."""

    def __init__(self, context: BackendContext, delay_s: float = 0.004) -> None:
        super().__init__(context)
        self._engine = ScribeEngine(delay_s)
        self._app = build_app(self._engine, engine_info(context, "scribe"))

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    @property
    def app(self) -> ASGIApp:
        return self._app

    def card(self) -> ModelCard:
        return ModelCard(self.context.name, "scribe", self._engine.max_model_len, capabilities=("chat", "completions"))

    def running(self) -> int:
        return self._engine.running
