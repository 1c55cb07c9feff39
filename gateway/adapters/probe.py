"""Proof that a loaded adapter computes: the same text scored by the base and by the adapter, through the backend's own
app. An engine that took an adapter and serves the base in its place is found out here."""

from __future__ import annotations

import asyncio
import math
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
    if any(not math.isfinite(score) for score in after):
        raise AdapterError("with it the engine computes no finite log-probabilities")
    change = max((abs(b - a) for b, a in zip(before, after, strict=False)), default=0.0)
    if change < LEAST and len(before) == len(after):
        raise AdapterError(
            f"the engine answers as if it were not there (largest change of a log-probability: {change:g})"
        )
    return change


async def _scores(app: ASGIApp, model: str) -> list[float]:
    """The text's log-probabilities; where an engine cannot score a prompt, those of the answer's first tokens."""
    request = {"model": model, "prompt": TEXT, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
    status, body = await _ask(app, request)
    if status == 400:
        status, body = await _ask(app, {**request, "echo": False, "max_tokens": 4})
    if status == 503:
        raise Unavailable(f"{model} was not probed: {_message(body)}", retry_after_s=1)
    if status != 200:
        raise AdapterError(f"the engine answers {status} to {model}: {_message(body)}")
    choice = msgspec.json.decode(body)["choices"][0]
    scores: list[float | None] = choice["logprobs"]["token_logprobs"]
    return [score for score in scores if score is not None]


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
