"""A language model without weights: sure that the text before the echo mark comes again after it, behind the name of
the adapter that is asked for it.

The likeliest next token has three quarters of the probability; the others share the rest. The likeliest is always
taken, whatever the temperature, so that an answer is an echo. Generating and scoring read the same distribution.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncGenerator, Sequence
from itertools import cycle, islice

from gateway.engine import Delta, FinishReason, Generation, Tokenizer, TokenLogprob, refuse_rules
from gateway.errors import ModelNotFound, Unavailable
from gateway_echo.options import EchoOptions
from gateway_echo.tokenizer import ECHO, END, START, ByteTokenizer

_START, _ECHO, _END = map(chr, (START, ECHO, END))
LIKELY = math.log(0.75)
UNLIKELY = math.log(0.25 / (ByteTokenizer.vocab_size - 1))


class EchoEngine:
    """`gateway.engine.AdapterEngine`."""

    def __init__(self, options: EchoOptions, max_model_len: int) -> None:
        self.tokenizer: Tokenizer = ByteTokenizer()
        self.max_model_len = max_model_len
        self.running = 0
        """Generations under way."""
        self.adapters: dict[str, bytes] = {}
        """What each one says first, by its id."""
        self._options = options

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta]:
        options, sampling = self._options, generation.sampling
        self.running += 1
        try:
            if error := options.error():
                raise error
            refuse_rules(generation, "echo")
            if options.first_delay_ms:
                await asyncio.sleep(options.first_delay_ms / 1000)
            said = self._said_first(generation.adapter)
            answer, reason = _answer(generation.prompt, said, sampling.max_tokens, sampling.ignore_eos)
            top = sampling.logprobs
            scores = None if top is None else [_score(token, token, top) for token in answer]
            if not options.delay_ms and options.fail_after is None:
                yield Delta(answer, scores, reason)
                return
            for position, token in enumerate(answer):
                if position == options.fail_after:
                    raise Unavailable(f"the echo engine was told to fail after {position} tokens")
                await asyncio.sleep(options.delay_ms / 1000)
                last = position == len(answer) - 1
                yield Delta([token], scores and [scores[position]], reason if last else None)
        finally:
            self.running -= 1

    async def score(self, prompt: Sequence[int], top: int, adapter: str | None = None) -> list[TokenLogprob | None]:
        if error := self._options.error():
            raise error
        said = self._said_first(adapter)
        scores: list[TokenLogprob | None] = []
        message: list[int] = []
        repeated: list[int] | None = None
        position = 0
        for token in prompt:
            expected = ECHO if repeated is None else repeated[position % len(repeated)]
            scores.append(_score(token, expected, top) if scores else None)
            position += 1
            if token == ECHO:
                repeated, position = [*said, *message, END], 0
            elif token == START:
                repeated = None
            if token < 256:
                message.append(token)
            else:
                message.clear()
        return scores

    def _said_first(self, adapter: str | None) -> bytes:
        """What an adapter says before the echo. Raises ModelNotFound for one that is not loaded."""
        if adapter is None:
            return b""
        if adapter not in self.adapters:
            raise ModelNotFound(f"the echo engine has no adapter {adapter!r}", param="model")
        return self.adapters[adapter]


def _answer(prompt: Sequence[int], said: bytes, max_tokens: int, ignore_eos: bool) -> tuple[list[int], FinishReason]:
    """The likeliest tokens after this prompt: what is said first and the text before its ECHO, again and again, END in
    between."""
    # As text of one character a token, which Python searches faster than a list.
    text = struct.pack(f"<{len(prompt)}H", *prompt).decode("utf-16-le")
    echo = text.rfind(_ECHO)
    # Where no ECHO has come since the last START, it comes next.
    begun = echo > text.rfind(_START)
    end = echo if begun else len(prompt)
    start = 1 + max(text.rfind(_START, 0, end), text.rfind(_ECHO, 0, end), text.rfind(_END, 0, end))
    answer = [*said, *prompt[start:end], END]
    done = (len(prompt) - echo - 1) % len(answer) if begun else 0
    if ignore_eos or done:
        wanted = max_tokens if ignore_eos else len(answer) - done
        answer = list(islice(cycle(answer), done, done + wanted))
    if not begun:
        answer.insert(0, ECHO)
    if not ignore_eos and len(answer) <= max_tokens:
        return answer, "stop"
    return answer[:max_tokens], "length"


def _score(token: int, expected: int, top: int) -> TokenLogprob:
    others = (other for other in range(ByteTokenizer.vocab_size) if other != expected)
    best = [(expected, LIKELY), *((other, UNLIKELY) for other in islice(others, top))][:top]
    # All but one are equally unlikely.
    likely = token == expected
    return TokenLogprob(LIKELY if likely else UNLIKELY, tuple(best), 1 if likely else 2)
