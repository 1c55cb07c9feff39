"""A thread that steps a batch, and the event loop's view of it. Implements TextEngine; knows no graph.

Commands go in through a locked list, results come out once a step with one `call_soon_threadsafe` per loop: the loop is
never blocked and never woken token by token.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import msgspec

from gateway.engine import Delta, Generation, Tokenizer, TokenLogprob
from gateway.errors import ContextOverflow, GatewayError, ModelNotFound, Unavailable
from gateway_onnx.batch import Batch, Emission
from gateway_onnx.lora_files import LowRank

log = logging.getLogger("gateway.onnx")

_Command = Callable[[Batch], None]


@dataclass(eq=False, slots=True)
class _Stream:
    """One piece of work as its reader sees it. `pending` and `wake` belong to the reader's loop."""

    loop: asyncio.AbstractEventLoop
    pending: deque[Emission] = field(default_factory=deque[Emission])
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class OnnxEngine:
    """Prompt ids in, deltas out. Made on any thread; `open` it before use, `close` it afterwards."""

    def __init__(
        self,
        make: Callable[[], Batch],
        tokenizer: Tokenizer,
        max_model_len: int,
        *,
        max_streams: int,
        scores_prompts: bool = True,
    ) -> None:
        """`make` is called in the engine's own thread: a batch lives its whole life there."""
        self.tokenizer = tokenizer
        self.max_model_len = max_model_len
        self.adapters: set[str] = set()
        """Ids of what is loaded."""
        self._make = make
        self.scores_prompts = scores_prompts
        self._max_streams = max_streams
        self._streams: dict[str, _Stream] = {}
        self._numbers = count()
        self._changed = threading.Condition()
        self._commands: list[_Command] = []
        self._closing = False
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="onnx-engine", daemon=True)

    def open(self) -> None:
        """Load the model. Blocks; raises what loading raised."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop after the step under way and free the batch. Blocks; safe to call twice and before `open`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def check(self) -> None:
        """Raises Unavailable where the engine can no longer answer."""
        if self._failure is not None:
            raise Unavailable(f"the onnx engine has failed: {self._failure}") from self._failure
        if self._closing or not self._thread.is_alive():
            raise Unavailable("the onnx engine is stopped")

    def running(self) -> int:
        """Generations and scorings in the engine, waiting or being computed."""
        return len(self._streams)

    async def load(self, adapter: str, matrices: LowRank) -> None:
        """Place an adapter between two steps. Raises AdapterError where it does not fit."""
        await self._between_steps(lambda batch: batch.load(adapter, matrices))
        self.adapters.add(adapter)

    async def unload(self, adapter: str) -> None:
        """Forget an adapter; unknown ids are fine."""
        self.adapters.discard(adapter)
        await self._between_steps(lambda batch: batch.unload(adapter))

    async def _between_steps(self, command: _Command) -> None:
        work = f"{next(self._numbers)}"

        def told(batch: Batch) -> None:
            command(batch)
            self._publish([Emission(work, finish_reason="stop")])

        stream = self._enter(work, told)
        try:
            await self._next(stream)
        finally:
            self._streams.pop(work, None)

    def _require(self, adapter: str | None) -> None:
        if adapter is not None and adapter not in self.adapters:
            raise ModelNotFound(f"the onnx engine has no adapter {adapter!r}", param="model")

    async def generate(self, generation: Generation) -> AsyncIterator[Delta]:
        self._require(generation.adapter)
        if len(generation.prompt) + generation.sampling.max_tokens > self.max_model_len:
            raise ContextOverflow(
                f"{len(generation.prompt)} prompt tokens and {generation.sampling.max_tokens} more do not fit the "
                f"model's context of {self.max_model_len}"
            )
        # Ids of ours: two requests may bear one id.
        work = f"{next(self._numbers)}"
        own = msgspec.structs.replace(generation, id=work)
        stream = self._enter(work, lambda batch: batch.generate(own))
        try:
            while True:
                delta = _joined(await self._next(stream))
                yield delta
                if delta.finish_reason is not None:
                    return
        finally:
            self._leave(work)

    async def score(self, prompt: Sequence[int], top: int, adapter: str | None = None) -> list[TokenLogprob | None]:
        self._require(adapter)
        if len(prompt) > self.max_model_len:
            raise ContextOverflow(f"{len(prompt)} tokens do not fit the model's context of {self.max_model_len}")
        work = f"{next(self._numbers)}"
        stream = self._enter(work, lambda batch: batch.score(work, prompt, top, adapter))
        try:
            return [entry for emission in await self._next(stream) for entry in emission.scores or ()]
        finally:
            self._leave(work)

    def _enter(self, work: str, command: _Command) -> _Stream:
        self.check()
        if len(self._streams) >= self._max_streams:
            raise Unavailable(f"the onnx engine has {len(self._streams)} generations already", retry_after_s=1)
        stream = _Stream(asyncio.get_running_loop())
        self._streams[work] = stream

        def guarded(batch: Batch) -> None:
            try:
                command(batch)
            except GatewayError as error:
                self._publish([Emission(work, error=error)])

        if not self._send(guarded):
            del self._streams[work]
            self.check()
        return stream

    def _leave(self, work: str) -> None:
        if self._streams.pop(work, None) is not None:
            self._send(lambda batch: batch.remove(work))

    def _send(self, command: _Command) -> bool:
        """Whether the thread will still see the command."""
        with self._changed:
            if self._closing:
                return False
            self._commands.append(command)
            self._changed.notify()
            return True

    @staticmethod
    async def _next(stream: _Stream) -> list[Emission]:
        """What became ready, at least one emission. Raises the work's own failure."""
        await stream.wake.wait()
        stream.wake.clear()
        emissions = list(stream.pending)
        stream.pending.clear()
        for emission in emissions:
            if emission.error is not None:
                raise emission.error
        return emissions

    def _run(self) -> None:
        try:
            batch = self._make()
        except BaseException as error:
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        try:
            self._drive(batch)
        except BaseException as error:
            log.exception("the onnx engine has failed")
            self._failure = error
        finally:
            # Whoever still waits is told; nobody can enter any more.
            with self._changed:
                self._closing = True
            gone = Unavailable(f"the onnx engine has {'failed' if self._failure else 'stopped'}")
            self._publish([Emission(work, error=gone) for work in list(self._streams)])
            batch.close()

    def _drive(self, batch: Batch) -> None:
        while True:
            with self._changed:
                while not self._commands and not self._closing and not batch.busy():
                    self._changed.wait()
                if self._closing:
                    return
                commands, self._commands = self._commands, []
            for command in commands:
                command(batch)
            if batch.busy():
                self._publish(batch.step())

    def _publish(self, emissions: Sequence[Emission]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Stream, Emission]]] = {}
        for emission in emissions:
            if (stream := self._streams.get(emission.id)) is not None:
                by_loop.setdefault(stream.loop, []).append((stream, emission))
        for loop, ready in by_loop.items():
            try:
                loop.call_soon_threadsafe(_deliver, ready)
            except RuntimeError:
                # The loop is closed, and its readers with it: nobody is left to tell.
                for emission in emissions:
                    stream = self._streams.get(emission.id)
                    if stream is not None and stream.loop is loop:
                        self._leave(emission.id)


def _deliver(ready: Sequence[tuple[_Stream, Emission]]) -> None:
    for stream, emission in ready:
        stream.pending.append(emission)
        stream.wake.set()


def _joined(emissions: Sequence[Emission]) -> Delta:
    """One delta for everything that is ready."""
    logprobs: list[TokenLogprob] | None = None
    if all(each.logprobs is not None for each in emissions):
        logprobs = [entry for each in emissions for entry in each.logprobs or ()]
    return Delta(
        [token for each in emissions for token in each.tokens],
        logprobs,
        emissions[-1].finish_reason,
        max(each.cached_tokens for each in emissions),
        emissions[0].prompt_logprobs,
    )
