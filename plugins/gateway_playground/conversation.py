"""One person's conversation: what was said, what is being said, and the facts of each answer. Knows no Gradio."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from gateway.tabs import AskError, PageClient
from gateway_playground.pace import Paced
from gateway_playground.question import Piece, Question, ask

UPDATE_S = 0.05
"""Twenty updates a second look like a stream to a person; each costs the page's process about a millisecond."""

SHORTEST_S = 0.005
"""Below this, the time between first and last token measures sockets, not a model."""


@dataclass(slots=True)
class Turn:
    """A question and its answer, growing while it streams."""

    question: str
    model: str
    answer: str = ""
    reasoning: str = ""
    target: str = ""
    pieces: int = 0
    completion_tokens: int | None = None
    """As the backend counted them; None until it said so."""
    first_token_s: float | None = None
    """From the moment of asking to the first text."""
    last_token_s: float = 0.0
    length_limited: bool = False
    stopped: bool = False
    failure: str = ""
    done: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of the answer; the number of chunks where the backend did not say (an answer that was stopped)."""
        return self.pieces if self.completion_tokens is None else self.completion_tokens

    @property
    def tokens_per_s(self) -> float | None:
        """Decoding speed after the first token; None where all came at once, for then there is no such speed."""
        if self.first_token_s is None or self.tokens < 2 or self.last_token_s - self.first_token_s < SHORTEST_S:
            return None
        return (self.tokens - 1) / (self.last_token_s - self.first_token_s)

    def add(self, piece: Piece, after_s: float) -> None:
        self.target = piece.target or self.target
        if piece.text or piece.reasoning:
            self.answer += piece.text
            self.reasoning += piece.reasoning
            self.pieces += 1
            self.last_token_s = after_s
            if self.first_token_s is None:
                self.first_token_s = after_s
        if piece.completion_tokens is not None:
            self.completion_tokens = piece.completion_tokens
        self.length_limited = self.length_limited or piece.finish_reason == "length"


@dataclass(slots=True, eq=False)
class Conversation:
    """Kept on the page's server for as long as its browser tab lives; never written anywhere. Holds no key."""

    turns: list[Turn] = field(default_factory=list[Turn])
    streaming: Paced[tuple[Piece, float]] | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Conversation:
        # A page that opens gets an empty one of its own.
        return Conversation()

    def messages(self, system: str) -> list[dict[str, str]]:
        """The conversation as a request carries it, the last turn's question last. Failed turns are left out."""
        said = [{"role": "system", "content": system}] if system.strip() else []
        for turn in self.turns[:-1]:
            if turn.answer and not turn.failure:
                said.append({"role": "user", "content": turn.question})
                said.append({"role": "assistant", "content": turn.answer})
        return [*said, {"role": "user", "content": self.turns[-1].question}]

    def public(self) -> dict[str, Any] | None:
        """The open chat as other tabs are given it; None before anything was said."""
        if not self.turns:
            return None
        said: list[dict[str, str]] = []
        for turn in self.turns:
            said.append({"role": "user", "content": turn.question})
            if turn.answer and not turn.failure:
                said.append({"role": "assistant", "content": turn.answer, "model": turn.target or turn.model})
        return {"title": self.turns[0].question[:80], "messages": said}

    def stop(self) -> None:
        """End the answer that streams, here and at the server."""
        if self.streaming is not None:
            self.streaming.stop()

    async def answer(self, client: PageClient, question: Question) -> AsyncGenerator[Turn]:
        """Stream the last turn's answer into it; gives the turn each time it has grown, and once when it is done."""
        turn = self.turns[-1]
        asked_at = time.perf_counter()

        async def timed() -> AsyncGenerator[tuple[Piece, float]]:
            # Stamped as it arrives, not as it is shown.
            async with aclosing(ask(client, question)) as pieces:
                async for piece in pieces:
                    yield piece, time.perf_counter() - asked_at

        paced = self.streaming = Paced(timed(), UPDATE_S)
        try:
            async with aclosing(paced.batches()) as batches:
                async for batch in batches:
                    for piece, after_s in batch:
                        turn.add(piece, after_s)
                    yield turn
            turn.stopped = paced.stopped
        except AskError as failure:
            turn.failure = failure.message
        finally:
            turn.done = True
            self.streaming = None
        yield turn
