"""Proof that a loaded adapter computes: the same text scored by the base and by the adapter, through the backend's own
app. An engine that took an adapter and serves the base in its place is found out here."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.errors import AdapterError, Unavailable
from gateway.types import ASGIApp, Message, Scope

TEXT = "The quick brown fox jumps over the lazy dog. Question: what is 12 + 7? Answer:"
LEAST = 1e-4
"""The largest change of any token's log-probability is at least this; one engine's own noise in float32 is less."""
WITHIN_S = 60.0


async def probe(app: ASGIApp, base: str, id: str) -> float:
    """The largest change. Raises AdapterError where there is none, and Unavailable where the engine does not answer."""
    try:
        async with asyncio.timeout(WITHIN_S):
            before, after = await asyncio.gather(_scores(app, base), _scores(app, id))
    except TimeoutError:
        raise Unavailable(f"{id} was not probed within {WITHIN_S:.0f} s: the engine is busy", retry_after_s=5) from None
    if any(not math.isfinite(score) for _, score in after):
        raise AdapterError("with it the engine computes no finite log-probabilities")
    if [token for token, _ in before] != [token for token, _ in after]:
        # It continues the text with another token.
        return math.inf
    change = max((abs(b - a) for (_, b), (_, a) in zip(before, after, strict=True)), default=0.0)
    if change < LEAST:
        raise AdapterError(
            f"the engine answers as if it were not there (largest change of a log-probability: {change:g})"
        )
    return change


async def _scores(app: ASGIApp, model: str) -> list[tuple[str, float]]:
    """Each token with its log-probability: of the text and one more; where an engine cannot score a prompt, of the
    answer's first ones."""
    request = {"model": model, "prompt": TEXT, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
    status, body = await _ask(app, request)
    if status == 400:
        status, body = await _ask(app, {**request, "echo": False, "max_tokens": 4})
    if status == 503:
        raise Unavailable(f"{model} was not probed: {_message(body)}", retry_after_s=1)
    if status != 200:
        raise AdapterError(f"the engine answers {status} to {model}: {_message(body)}")
    told = msgspec.json.decode(body)["choices"][0]["logprobs"]
    pairs: Iterable[tuple[str, float | None]] = zip(told["tokens"], told["token_logprobs"], strict=True)
    return [(token, score) for token, score in pairs if score is not None]


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return body[:300].decode(errors="replace")


async def _ask(app: ASGIApp, request: dict[str, Any]) -> tuple[int, bytes]:
    body = msgspec.json.encode(request)
    status = 0
    parts: list[bytes] = []
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await asyncio.Event().wait()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/completions",
        "raw_path": b"/v1/completions",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
        "client": None,
        "server": None,
    }
    await app(scope, receive, send)
    return status, b"".join(parts)
