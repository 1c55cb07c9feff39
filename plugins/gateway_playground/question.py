"""One chat request and what its stream brings. Knows the shape of chat completions, and no page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.tabs import AskError, PageClient


@dataclass(frozen=True, slots=True)
class Question:
    """One chat request."""

    model: str
    path: str
    """Where to ask: `/m/<model>/v1`, or `/v1`."""
    messages: list[dict[str, Any]]
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Sampling parameters and whatever else goes into the body as it is."""
    key: str = ""

    def body(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": self.messages,
            **self.parameters,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def __repr__(self) -> str:
        # A key must not reach a log through a traceback's locals or a debugger's print.
        return f"Question(model={self.model!r}, messages={len(self.messages)})"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of a stream brought."""

    text: str = ""
    reasoning: str = ""
    target: str = ""
    """Who answers, by `x-gateway-target`."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """The whole prompt's and answer's tokens, as the backend counted them; in the last piece only."""
    finish_reason: str = ""


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


async def ask(client: PageClient, question: Question) -> AsyncGenerator[Piece]:
    """Stream one answer. Closing the generator closes the connection, which ends the generation at the server.

    Raises AskError, also in the middle of an answer.
    """
    told: dict[str, str] = {}
    path = f"{question.path}/chat/completions"
    async with aclosing(client.events(path, question.key, question.body(), told)) as events:
        async for event in events:
            try:
                chunk = msgspec.convert(event, _Chunk)
            except msgspec.ValidationError as error:
                raise AskError("The model sent something that is not an answer.") from error
            choice = chunk.choices[0] if chunk.choices else _Choice()
            usage = chunk.usage or _Usage()
            yield Piece(
                text=choice.delta.content or "",
                reasoning=choice.delta.reasoning or choice.delta.reasoning_content or "",
                target=told.get("x-gateway-target", ""),
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                finish_reason=choice.finish_reason or "",
            )
