"""One person's conversation: what was said, what is being said, and the facts of each answer. Knows no Gradio."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

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
    prompt_tokens: int | None = None
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
        if piece.prompt_tokens is not None:
            self.prompt_tokens = piece.prompt_tokens
        if piece.completion_tokens is not None:
            self.completion_tokens = piece.completion_tokens
        self.length_limited = self.length_limited or piece.finish_reason == "length"


@dataclass(slots=True, eq=False)
class Conversation:
    """Kept on the page's server for as long as its browser tab lives; never written anywhere. Holds no key."""

    turns: list[Turn] = field(default_factory=list[Turn])
    branches: list[list[Turn]] = field(default_factory=list[list[Turn]])
    """Other ways it went: kept whole when a question was changed or an answer made anew."""
    place: int = 0
    """Where `turns` stand among the branches: numbers that a page shows stay what they were."""
    id: str = ""
    """Given when it is first kept by the browser."""
    title: str = ""
    """As the person named it; "" where it goes by its first question."""
    system: str = ""
    streaming: Paced[tuple[Piece, float]] | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Conversation:
        # A page that opens gets an empty one of its own.
        return Conversation()

    @property
    def name(self) -> str:
        """What it is called in a list."""
        return self.title or (" ".join(self.turns[0].question.split())[:60] if self.turns else "")

    def ways(self) -> list[list[Turn]]:
        """All branches, the open one among them in its place."""
        return [*self.branches[: self.place], self.turns, *self.branches[self.place :]]

    def branch(self, index: int, question: str) -> None:
        """Ask at turn `index`, in other words or again. What stood there and after it is kept as a branch."""
        if any(turn.answer for turn in self.turns[index:]):
            self.branches = self.ways()
            self.place = len(self.branches)
        self.turns = [*self.turns[:index], Turn(question, model="")]

    def switch(self, branch: int) -> None:
        """Go on with another of `ways`. A number that there is not changes nothing."""
        ways = self.ways()
        if 0 <= branch < len(ways):
            self.turns = ways.pop(branch)
            self.branches, self.place = ways, branch

    def reset(self) -> None:
        """Begin anew."""
        self.stop()
        self.turns, self.branches, self.place, self.id, self.title = [], [], 0, "", ""

    def messages(self, system: str) -> list[dict[str, str]]:
        """The conversation as a request carries it, the last turn's question last. Failed turns are left out."""
        said = [{"role": "system", "content": system}] if system.strip() else []
        for turn in self.turns[:-1]:
            if turn.answer and not turn.failure:
                said.append({"role": "user", "content": turn.question})
                said.append({"role": "assistant", "content": turn.answer})
        return [*said, {"role": "user", "content": self.turns[-1].question}]

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
