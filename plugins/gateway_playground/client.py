"""Talks to the gateway as any client does: lists models, streams chat answers. Knows no page and keeps no key."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import msgspec

from gateway_playground.failures import AskError, message_in, of_status, of_transport


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One row of `/v1/models`: a model, a route or an adapter."""

    name: str
    path: str
    """Where to ask it: `/m/<model>/v1`, the fast lane, where the row names one, else `/v1`."""
    up: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    """One chat request."""

    model: str
    path: str
    messages: list[dict[str, str]]
    temperature: float
    max_tokens: int
    key: str

    def body(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": self.messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
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
    """Who answers, by `x-gateway-target`; in the first piece only."""
    completion_tokens: int | None = None
    """The whole answer's tokens, as the backend counted them; in the last piece only."""
    finish_reason: str = ""


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class GatewayClient:
    """One pool of connections for all users of the page; each call carries its own user's key."""

    def __init__(self, base_url: str, read_timeout_s: float) -> None:
        self.base_url = base_url.rstrip("/")
        # The gateway is on this machine: a proxy of the environment has no business in between.
        self._http = httpx.AsyncClient(
            base_url=self.base_url,
            timeout=httpx.Timeout(read_timeout_s, connect=5, write=30, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def models(self, key: str) -> list[ServedModel]:
        """What is served, in the gateway's order. Raises AskError."""
        try:
            answer = await self._http.get("/v1/models", headers=_headers(key), timeout=10)
        except httpx.HTTPError as error:
            raise of_transport(error, self.base_url) from error
        if answer.status_code != 200:
            raise of_status(answer.status_code, answer.content, answer.headers, with_key=bool(key))
        try:
            rows = cast("list[dict[str, Any]]", msgspec.json.decode(answer.content)["data"])
            return [_served(row) for row in rows]
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise AskError(f"What answers at {self.base_url} is not a gateway.") from error

    async def ask(self, question: Question) -> AsyncGenerator[Piece]:
        """Stream one answer. Closing the generator closes the connection, which ends the generation at the server.

        Raises AskError, also in the middle of an answer.
        """
        started = False
        try:
            url = f"{question.path}/chat/completions"
            async with self._http.stream("POST", url, json=question.body(), headers=_headers(question.key)) as answer:
                if answer.status_code != 200:
                    body = await answer.aread()
                    raise of_status(
                        answer.status_code, body, answer.headers, model=question.model, with_key=bool(question.key)
                    )
                yield Piece(target=answer.headers.get("x-gateway-target", ""))
                finished = False
                async for line in answer.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line[5:].strip()
                    if data == "[DONE]":
                        return
                    piece = _piece(data)
                    started = started or bool(piece.text)
                    finished = finished or bool(piece.finish_reason)
                    yield piece
                if not finished:
                    raise AskError("The connection to the model was lost: the answer is not complete.")
        except httpx.HTTPError as error:
            raise of_transport(error, self.base_url, started=started) from error


def _headers(key: str) -> dict[str, str]:
    if not key:
        return {}
    if not key.isascii() or not key.isprintable():
        raise AskError("This is not a key: keys are plain letters, digits and signs.", needs_key=True)
    return {"authorization": f"Bearer {key}"}


def _served(row: dict[str, Any]) -> ServedModel:
    facts: dict[str, Any] = row.get("gateway") or {}
    # The address is the one outside clients use; from here the same path leads there on this machine, and a key
    # can never be sent to another host.
    path = urlsplit(str(facts.get("url") or "")).path.rstrip("/") or "/v1"
    if not path.endswith("/v1"):
        path += "/v1"
    return ServedModel(name=str(row["id"]), path=path, up=facts.get("up") is not False)


def _piece(data: str) -> Piece:
    try:
        chunk = msgspec.json.decode(data, type=_Chunk)
    except msgspec.DecodeError as error:
        raise AskError("The model sent something that is not an answer.") from error
    if chunk.error is not None:
        said = message_in({"error": chunk.error})
        raise AskError(f"The answer broke off: {said or 'the model failed'}")
    choice = chunk.choices[0] if chunk.choices else _Choice()
    return Piece(
        text=choice.delta.content or "",
        reasoning=choice.delta.reasoning or choice.delta.reasoning_content or "",
        completion_tokens=chunk.usage.completion_tokens if chunk.usage else None,
        finish_reason=choice.finish_reason or "",
    )
