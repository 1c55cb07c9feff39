"""Runs a request's choices and sends what they say, at once or as a stream. Knows their order, not their fields.

A client that leaves ends every generation: told by `http.disconnect`, by cancellation or by a `send` that fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from gateway.engine import TextEngine
from gateway.errors import GatewayError
from gateway.openai.choice import Choice, Step
from gateway.openai.writer import Writer
from gateway.types import Headers, Send

JSON = (b"content-type", b"application/json")
_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_DONE = b"data: [DONE]\n\n"


async def answer_whole(engine: TextEngine, choices: Sequence[Choice], writer: Writer, send: Send) -> None:
    """One JSON body, once every choice is finished."""
    if len(choices) == 1:
        pieces = [await choices[0].collect(engine)]
    else:
        pieces = await together([choice.collect(engine) for choice in choices])
    await send_body(200, [JSON], writer.body(choices, pieces), send)


async def answer_stream(engine: TextEngine, choices: Sequence[Choice], writer: Writer, send: Send) -> None:
    """Server-sent events. All that is ready leaves as one message.

    An error before the first event is raised; a later one is an event.
    """
    started = False
    try:
        async with aclosing(_events(engine, choices, writer)) as messages:
            async for message, last in messages:
                if not started:
                    started = True
                    await send({"type": "http.response.start", "status": 200, "headers": _STREAM})
                await send({"type": "http.response.body", "body": message, "more_body": not last})
    except GatewayError as error:
        if not started:
            raise
        await send({"type": "http.response.body", "body": b"data: " + error.to_json() + b"\n\n" + _DONE})


async def send_body(status: int, headers: Headers, body: bytes, send: Send) -> None:
    """A whole response."""
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _events(engine: TextEngine, choices: Sequence[Choice], writer: Writer) -> AsyncGenerator[tuple[bytes, bool]]:
    """(bytes to send, whether they are the last)."""
    if len(choices) == 1:
        choice = choices[0]
        async with aclosing(choice.follow(engine)) as steps:
            async for step in steps:
                events = writer.events(choice, step)
                if step.finish_reason is not None:
                    yield events + writer.usage_event(choices) + _DONE, True
                    return
                yield events, False
        return
    async with aclosing(_merged(engine, choices)) as turns:
        async for turn in turns:
            yield b"".join([writer.events(choice, step) for choice, step in turn]), False
    yield writer.usage_event(choices) + _DONE, True


async def _merged(engine: TextEngine, choices: Sequence[Choice]) -> AsyncGenerator[list[tuple[Choice, Step]]]:
    """What any of the choices has ready, until all are finished. As many steps may wait as there are choices."""
    ready: asyncio.Queue[tuple[Choice, Step] | None] = asyncio.Queue()
    room = asyncio.Semaphore(len(choices))

    async def pump(choice: Choice) -> None:
        async with aclosing(choice.follow(engine)) as steps:
            async for step in steps:
                await room.acquire()
                ready.put_nowait((choice, step))

    async def pump_all() -> None:
        try:
            await together([pump(choice) for choice in choices])
        finally:
            ready.put_nowait(None)

    pumps = asyncio.create_task(pump_all())
    try:
        over = False
        while not over:
            items = [await ready.get()]
            while not ready.empty():
                items.append(ready.get_nowait())
            turn = [item for item in items if item is not None]
            over = len(turn) < len(items)
            for _ in turn:
                room.release()
            if turn:
                yield turn
        await pumps
    finally:
        pumps.cancel()
        await asyncio.wait([pumps])


T = TypeVar("T")


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order. The first error is raised once the others have been cancelled and have ended."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
