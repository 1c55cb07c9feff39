"""One sequence on its way from an engine's deltas to pieces of text. Knows no JSON and no HTTP."""

from __future__ import annotations

import codecs
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import AsyncGeneratorType
from typing import NamedTuple, cast

from gateway.engine import AdapterEngine, Delta, FinishReason, Generation, TextEngine, Tokenizer, TokenLogprob
from gateway.errors import BackendFailed, GatewayError
from gateway.openai.reading import Reader, Said
from gateway.openai.stop_strings import StopStrings

log = logging.getLogger("gateway.openai")


class Scored(NamedTuple):
    """One token of the answer or the prompt, as `logprobs` shows it."""

    token_id: int
    logprob: TokenLogprob | None
    """None: the first token of a prompt, which nothing comes before."""
    offset: int
    """Where its text begins, in characters."""


def score_prompt(
    prompt: Sequence[int], scores: Sequence[TokenLogprob | None], top: int, tokenizer: Tokenizer
) -> list[Scored]:
    """A prompt's tokens with their scores and `top` alternatives. Offsets count whole characters, so that the bytes of
    one share its place. Raises BackendFailed where the engine has not scored every token."""
    if len(scores) != len(prompt):
        raise BackendFailed(f"the engine gave {len(scores)} scores for {len(prompt)} tokens")
    reader = codecs.getincrementaldecoder("utf-8")("replace")
    scored: list[Scored] = []
    length = 0
    for token_id, score in zip(prompt, scores, strict=True):
        if score is not None and len(score.top) > top:
            score = TokenLogprob(score.logprob, score.top[:top], score.rank)
        scored.append(Scored(token_id, score, length))
        length += len(reader.decode(tokenizer.token_bytes(token_id)))
    return scored


class Piece(NamedTuple):
    """Text that is shown at once, and the tokens that it came with (only where log-probabilities are asked)."""

    text: str
    tokens: Sequence[Scored] = ()
    said: Sequence[Said] = ()
    """What the text holds, where the choice has a reader; it may have come with earlier pieces."""


class Step(NamedTuple):
    """What one delta gave, and how far the choice was then: it may be further by the time this is written."""

    pieces: Sequence[Piece]
    finish_reason: FinishReason | None
    """Set with the last step."""
    completion_tokens: int


class Choice:
    """One of a request's choices: follows its generation until an end token, a stop string or `max_tokens`."""

    __slots__ = (
        "_decoding",
        "_length",
        "_pending",
        "_reader",
        "_stop_ids",
        "_stops",
        "_stops_from",
        "_tokenizer",
        "_unsaid",
        "cached_tokens",
        "called",
        "completion_tokens",
        "finish_reason",
        "generation",
        "index",
        "prefix",
        "prompt_scores",
        "started",
        "stop_reason",
    )

    def __init__(
        self,
        index: int,
        generation: Generation,
        tokenizer: Tokenizer,
        stops: tuple[str, ...] = (),
        prefix: Piece | None = None,
        reader: Reader | None = None,
    ) -> None:
        self.index = index
        self.generation = generation
        self.prefix = prefix
        """The prompt, where it is to be echoed: shown before the first piece."""
        self.started = False
        """Whether an event of this choice has been written: the writer's mark."""
        self.finish_reason: FinishReason | None = None
        self.stop_reason: str | int | None = None
        """The stop string or token that ended it; None for an end token."""
        self.called = False
        """Whether it calls a tool."""
        self.completion_tokens = 0
        self.cached_tokens = 0
        self._tokenizer = tokenizer
        self._decoding = tokenizer.decode_stream()
        self._reader = reader
        self._unsaid: list[Scored] = []
        self._stops = StopStrings(stops) if stops else None
        self._stop_ids = generation.sampling.stop_token_ids
        self._stops_from = generation.sampling.min_tokens
        self.prompt_scores: Sequence[TokenLogprob | None] | None = None
        """Of every token of the prompt, where asked; from the first delta on."""
        self._pending: list[Scored] = []
        self._length = len(prefix.text) if prefix else 0

    @property
    def reads(self) -> bool:
        """Whether its text is told apart into thoughts, words and calls."""
        return self._reader is not None

    async def follow(self, engine: TextEngine) -> AsyncGenerator[Step]:
        """What each delta gives, where it gives any; ends with a finish reason. Closing this stops the engine.

        Raises what the engine raises, and BackendFailed for what is not a GatewayError.
        """
        if self.generation.sampling.max_tokens == 0:
            self.finish_reason = "length"
            yield Step([Piece("")], "length", 0)
            return
        with _TRANSLATED:
            deltas = _generator(engine.generate(self.generation))
            try:
                async for delta in deltas:
                    pieces = self._take(delta)
                    if self._reader is not None:
                        pieces = self._read(self._reader, pieces)
                    if pieces:
                        yield Step(pieces, self.finish_reason, self.completion_tokens)
                    if self.finish_reason is not None:
                        return
            finally:
                await deltas.aclose()
        raise BackendFailed("the engine ended an answer without a reason")

    async def collect(self, engine: TextEngine) -> list[Piece]:
        """All of it. Nobody looks at single tokens here: a delta's text may be one piece. Raises as `follow`."""
        if self.generation.sampling.max_tokens == 0:
            self.finish_reason = "length"
            return [Piece("")]
        by_token = self._stops or self._stop_ids or self.generation.sampling.logprobs is not None
        take = self._take if by_token else self._take_whole
        collected: list[Piece] = []
        with _TRANSLATED:
            deltas = _generator(engine.generate(self.generation))
            try:
                async for delta in deltas:
                    pieces = take(delta)
                    collected += pieces if self._reader is None else self._read(self._reader, pieces)
                    if self.finish_reason is not None:
                        return collected
            finally:
                await deltas.aclose()
        raise BackendFailed("the engine ended an answer without a reason")

    def take_prompt(self, scores: Sequence[TokenLogprob | None]) -> None:
        """The prompt's scores, which are shown before the first piece where the prompt is echoed."""
        self.prompt_scores = scores
        if self.prefix is not None and (top := self.generation.sampling.logprobs) is not None:
            self.prefix = Piece(self.prefix.text, score_prompt(self.generation.prompt, scores, top, self._tokenizer))

    def _take_whole(self, delta: Delta) -> list[Piece]:
        if delta.prompt_logprobs is not None:
            self.take_prompt(delta.prompt_logprobs)
        self.completion_tokens += len(delta.token_ids)
        self.cached_tokens = self.cached_tokens or delta.cached_tokens
        text = self._decoding.step(delta.token_ids)
        if delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason
            text += self._decoding.flush()
            return [Piece(text)]
        return [Piece(text)] if text else []

    def _take(self, delta: Delta) -> list[Piece]:
        pieces: list[Piece] = []
        step, stops, logprobs = self._decoding.step, self._stops, delta.logprobs
        self.cached_tokens = self.cached_tokens or delta.cached_tokens
        if delta.prompt_logprobs is not None:
            self.take_prompt(delta.prompt_logprobs)
        if self.generation.sampling.logprobs is not None and (
            logprobs is None or len(logprobs) != len(delta.token_ids)
        ):
            raise BackendFailed("the engine gave no log-probabilities, or not one for each token")
        for position, token_id in enumerate(delta.token_ids):
            self.completion_tokens += 1
            # A token that stops is counted, not shown; end tokens give no text anyway.
            ends = delta.finish_reason == "stop" and token_id in self._stop_ids and position == len(delta.token_ids) - 1
            if ends:
                self.stop_reason = token_id
            text = "" if ends else step((token_id,))
            if logprobs is not None:
                self._pending.append(Scored(token_id, logprobs[position], self._length))
                self._length += len(text)
            if stops is not None and text:
                text = stops.push(text, watching=self.completion_tokens > self._stops_from)
                if stops.met is not None:
                    self.stop_reason = stops.met
                    return self._finish(pieces, text, "stop")
            if text:
                pieces.append(self._piece(text))
        if delta.finish_reason is not None:
            rest = self._decoding.flush()
            if stops is not None:
                rest = stops.push(rest, watching=self.completion_tokens > self._stops_from)
                if stops.met is not None:
                    self.stop_reason = stops.met
                    return self._finish(pieces, rest, "stop")
                rest += stops.flush()
            return self._finish(pieces, rest, delta.finish_reason)
        return pieces

    def _read(self, reader: Reader, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces with what they say; one that says nothing yet waits for the next."""
        found: list[Piece] = []
        for text, tokens, _ in pieces:
            self._unsaid += tokens
            if said := reader.push(text):
                found.append(Piece(text, self._unsaid, said))
                self._unsaid = []
        if self.finish_reason is not None:
            rest = reader.flush()
            if rest or self._unsaid or not found:
                found.append(Piece("", self._unsaid, rest))
        self.called = self.called or any(each.kind == "name" for piece in found for each in piece.said)
        return found

    def _piece(self, text: str) -> Piece:
        if not self._pending:
            return Piece(text)
        tokens, self._pending = self._pending, []
        return Piece(text, tokens)

    def _finish(self, pieces: list[Piece], rest: str, reason: FinishReason) -> list[Piece]:
        """The last pieces. What is left joins the last text of this delta, so that no empty event follows it."""
        self.finish_reason = reason
        left = self._piece(rest)
        if pieces and not left.text:
            last = pieces.pop()
            left = Piece(last.text, [*last.tokens, *left.tokens])
        return [*pieces, left]


async def score(prompt: Sequence[int], top: int, engine: TextEngine, adapter: str | None) -> list[TokenLogprob | None]:
    """An engine's scores of a prompt. Raises GatewayErrors, BackendFailed for what is none."""
    with _TRANSLATED:
        if adapter is None:
            return await engine.score(prompt, top)
        # Only an engine that has adapters was asked for one.
        return await cast(AdapterEngine, engine).score(prompt, top, adapter)


class _Translated:
    """Turns an engine's crash into a BackendFailed."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, GatewayError):
            raise engine_failed(error) from error


_TRANSLATED = _Translated()


def engine_failed(error: Exception) -> BackendFailed:
    """What a client is told of an engine's crash; the log is told the rest."""
    log.error("the engine failed", exc_info=error)
    return BackendFailed(f"the engine failed: {type(error).__name__}")


def _generator(deltas: AsyncIterator[Delta]) -> AsyncGenerator[Delta]:
    """An engine's iterator as one that can be closed."""
    if isinstance(deltas, AsyncGeneratorType):
        return cast(AsyncGenerator[Delta], deltas)
    return _as_generator(deltas)


async def _as_generator(deltas: AsyncIterator[Delta]) -> AsyncGenerator[Delta]:
    """For iterators that are written as classes: their own `aclose` is called, where they have one."""
    try:
        async for delta in deltas:
            yield delta
    finally:
        close = getattr(deltas, "aclose", None)
        if close is not None:
            await close()
