"""One token from a model through its handle: proof that its engine computes, without a key and without HTTP."""

# Ray's own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedClassDecorator=false

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
from ray import serve

from gateway.errors import ConfigError
from gateway.serve.applications import application_of
from gateway.serve.wire import Call, pack_call, unpack_head

WITHIN_S = 120.0


def first_tokens(models: Iterable[str]) -> None:
    """Ask every model for one token, all at once. Raises ConfigError with what one said instead."""
    # Serve's handles want an event loop around them.
    asyncio.run(_all(list(models)))


async def _all(models: list[str]) -> None:
    await asyncio.gather(*(_one(model) for model in models))


async def _one(model: str) -> None:
    body = msgspec.json.encode({"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    call = pack_call(Call("POST", "/v1/completions", b"", headers, body))
    try:
        async with asyncio.timeout(WITHIN_S):
            answer: bytes = await serve.get_app_handle(application_of(model)).answer.remote(call)
    except TimeoutError:
        raise ConfigError(f"{model} started, but made no token within {WITHIN_S:.0f} s") from None
    head, content = unpack_head(answer)
    if head.status != 200:
        raise ConfigError(f"{model} started, but answers {head.status}: {content[:500].decode(errors='replace')}")
