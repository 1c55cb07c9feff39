"""The thread that computes: admits rows, runs one step for all that generate and a bounded piece of prompts, and so on.

Batches change between steps, never within: a new request waits for at most one step and one piece of prompt. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue

import torch

from gateway.engine import Delta, FinishReason
from gateway.errors import BackendFailed, ConfigError, GatewayError, Unavailable
from gateway_torch.cache import RowCache, room
from gateway_torch.model import LanguageModel
from gateway_torch.options import TorchOptions
from gateway_torch.row import Row
from gateway_torch.sampling import choose, logprobs

log = logging.getLogger("gateway.torch")

NARROWEST_CHUNK = 32
"""Prompts are computed side by side only while each gets at least so many tokens of a piece."""

DEFAULT_CACHE_TOKENS = 16384

FAILURES = 3
"""After so many failed steps in a row the backend says that it is ill."""


class Scheduler:
    """Owns the model, its cache and the rows in flight. Made and started in the event loop; computes in its own thread.

    Rows stand in the cache's slots in the order of `_active`; those that generate come first.
    """

    def __init__(
        self, load: Callable[[], LanguageModel], options: TorchOptions, threads: int, eos: frozenset[int]
    ) -> None:
        self._load = load
        self._options = options
        self._threads = threads
        self._eos = eos
        self._inbox: SimpleQueue[Row | None] = SimpleQueue()
        self._alive: set[Row] = set()
        self._waiting: deque[Row] = deque()
        self._active: list[Row] = []
        self._generating = 0
        """The first so many of `_active`."""
        self._arrivals = 0
        self._failures = 0
        self._limit = 0
        self._stopping = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self.model: LanguageModel | None = None
        self.cache: RowCache | None = None

    # The event loop's side.

    async def start(self) -> LanguageModel:
        """Load the model in the thread that will use it. Raises what loading raised."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, ready), name="gateway-torch", daemon=True)
        self._thread.start()
        await ready
        return self._model()

    async def stop(self) -> None:
        """End the thread after its current step; whoever still waits is told."""
        self._stopping = True
        self._inbox.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def submit(self, row: Row) -> None:
        """Take a row in. Raises Unavailable where the thread has ended or too many wait."""
        if not self.healthy or self._stopping:
            raise Unavailable("the torch engine is not running")
        if len(self._alive) >= self._options.max_waiting + self._options.max_batch_size:
            raise Unavailable("the torch engine's queue is full; come again later", retry_after_s=1)
        self._arrivals += 1
        row.arrival = self._arrivals
        self._alive.add(row)
        self._inbox.put(row)
        if self._closed:
            # The thread ended meanwhile and may have looked for the last time.
            self._alive.discard(row)
            raise Unavailable("the torch engine is not running")

    @property
    def healthy(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and self._failures < FAILURES

    def running(self) -> int:
        """Rows that wait or are computed. A cancelled row counts until the thread has let go of it."""
        return len(self._alive)

    # The thread's side, from here on.

    def _run(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
        # The number of compute threads belongs to the thread that asks for it, so it is set here.
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                self._begin()
                loop.call_soon_threadsafe(_settle, ready, None)
                while not self._stopping:
                    self._receive()
                    self._try_turn()
        except Exception as error:
            if not ready.done():
                _call(loop, _settle, ready, error)
            else:
                log.exception("the torch engine's thread ended")
        finally:
            self._closed = True
            self._receive_all()
            self._fail_all(Unavailable("the torch engine has stopped"))
            self.model = self.cache = None

    def _begin(self) -> None:
        self.model = self._load()
        needed = room(self.model.max_model_len)
        self._limit = self._options.cache_tokens or max(DEFAULT_CACHE_TOKENS, needed)
        if self._limit < needed:
            raise ConfigError(
                f"options.cache_tokens: {self._limit} cannot hold one sequence of {self.model.max_model_len} tokens: "
                f"at least {needed}, or lower max_model_len"
            )
        self._clear()
        # A first step finds out at the start what this model cannot do, and wakes the libraries' threads.
        self._cache().reserve(1, 1, 0)
        self.model.step(self._cache(), [0], [0])
        self._clear()

    def _clear(self) -> None:
        model = self._model()
        self.cache = RowCache(self._limit, model.device)

    def _model(self) -> LanguageModel:
        if self.model is None:
            raise RuntimeError("the model is not loaded")
        return self.model

    def _cache(self) -> RowCache:
        if self.cache is None:
            raise RuntimeError("the model is not loaded")
        return self.cache

    def _receive(self) -> None:
        """Take what has come; sleep where there is nothing to do."""
        if not self._active and not self._waiting:
            row = self._inbox.get()
            if row is not None:
                self._waiting.append(row)
        self._receive_all()

    def _receive_all(self) -> None:
        try:
            while True:
                row = self._inbox.get_nowait()
                if row is not None:
                    self._waiting.append(row)
        except Empty:
            return

    def _try_turn(self) -> None:
        try:
            self._drop_cancelled()
            self._admit()
            self._give_way()
            if self._generating:
                self._step()
            if self._generating < len(self._active):
                self._chunk()
            self._failures = 0
        except Exception as error:
            log.exception("a step of the torch engine failed")
            self._failures += 1
            self._fail_all(BackendFailed(f"the torch engine failed: {type(error).__name__}"), waiting=False)
            self._clear()

    def _drop_cancelled(self) -> None:
        for slot in range(len(self._active) - 1, -1, -1):
            if self._active[slot].cancelled:
                self._leave(slot)
        if any(row.cancelled for row in self._waiting):
            self._alive.difference_update(row for row in self._waiting if row.cancelled)
            self._waiting = deque(row for row in self._waiting if not row.cancelled)

    def _admit(self) -> None:
        longest = max((len(row.tokens) for row in self._active), default=0)
        while self._waiting and len(self._active) < self._options.max_batch_size:
            longest = max(longest, len(self._waiting[0].tokens))
            if self._active and (len(self._active) + 1) * room(longest + 1) > self._limit:
                return
            self._active.append(self._waiting.popleft())

    def _give_way(self) -> None:
        """Make room for the next step; where there is none, the youngest wait and are computed again later."""
        while True:
            longest = max((len(row.tokens) for row in self._active), default=0)
            if len(self._active) <= 1 or len(self._active) * room(longest) <= self._limit:
                break
            slot = max(range(len(self._active)), key=lambda index: self._active[index].arrival)
            row = self._active[slot]
            self._remove(slot)
            row.restart()
            self._waiting.appendleft(row)
        if self._active:
            # Rows that have nothing in the cache yet stand last, so all that is to be kept is kept.
            self._cache().reserve(len(self._active), longest, min(len(self._active), self._cache().rows))

    def _step(self) -> None:
        rows = self._active[: self._generating]
        logits = self._model().step(self._cache(), [row.tokens[-1] for row in rows], [row.computed for row in rows])
        self._advance(rows, logits)

    def _chunk(self) -> None:
        """Compute a piece of the oldest prompts, side by side; those that are to be scored apart from the others."""
        waiting = sorted(range(self._generating, len(self._active)), key=lambda slot: self._active[slot].arrival)
        scored = self._active[waiting[0]].sampling is None
        budget = self._options.prefill_tokens
        slots = [slot for slot in waiting if (self._active[slot].sampling is None) == scored]
        slots = sorted(slots[: max(1, budget // NARROWEST_CHUNK)])
        width = budget // len(slots)
        rows = [self._active[slot] for slot in slots]
        starts = [row.computed for row in rows]
        chunks = [row.tokens[row.computed : row.computed + width] for row in rows]
        logits = self._model().chunk(self._cache(), slots, chunks, starts, every=scored)
        for row, chunk in zip(rows, chunks, strict=True):
            row.computed += len(chunk)
        if scored:
            self._score(rows, chunks, logits)
            return
        done = [index for index, row in enumerate(rows) if not row.pending]
        if done:
            finished = [rows[index] for index in done]
            for row in finished:
                row.computed -= 1  # `_advance` counts the last token
                self._join_generating(row)
            self._advance(finished, logits[:, -1][torch.tensor(done, device=logits.device)])

    def _join_generating(self, row: Row) -> None:
        slot, target = self._active.index(row), self._generating
        self._generating += 1
        if slot != target:
            other = self._active[target]
            self._cache().swap(slot, target, max(row.computed + 1, other.computed))
            self._active[slot], self._active[target] = other, row

    def _advance(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        """Give each row its next token, tell its reader, and let those go that are done."""
        tokens, reports = choose(logits, rows)
        news: list[tuple[Row, Delta | GatewayError]] = []
        over: list[Row] = []
        for row, token, report in zip(rows, tokens, reports, strict=True):
            row.computed += 1
            row.tokens.append(token)
            finish = self._finish(row, token)
            if finish is not None:
                over.append(row)
            news.append((row, Delta((token,), None if report is None else (report,), finish)))
        self._leave_all(over)
        _deliver(news)

    def _finish(self, row: Row, token: int) -> FinishReason | None:
        if row.sampling is None:
            return None
        if token in self._eos and not row.sampling.ignore_eos:
            return "stop"
        return "length" if row.generated >= row.sampling.max_tokens else None

    def _score(self, rows: Sequence[Row], chunks: Sequence[Sequence[int]], logits: torch.Tensor) -> None:
        over: list[Row] = []
        for row, chunk, line in zip(rows, chunks, logits, strict=True):
            start = row.computed - len(chunk)
            targets = row.tokens[start + 1 : row.computed + 1]
            if targets:
                first = line.shape[0] - len(chunk)
                ids = torch.tensor(targets, device=line.device)
                tops = [row.top] * len(targets)
                row.scores.extend(logprobs(line[first : first + len(targets)], ids, tops))
            if not row.pending:
                over.append(row)
        self._leave_all(over)
        _deliver([(row, Delta((), None, "length")) for row in over])

    def _leave_all(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._leave(self._active.index(row))

    def _leave(self, slot: int) -> None:
        self._alive.discard(self._active[slot])
        self._remove(slot)

    def _remove(self, slot: int) -> None:
        """Close the gap a row leaves: the last that generates takes its place, and the last of all takes that one's."""
        if slot < self._generating:
            self._generating -= 1
            self._refill(slot, self._generating)
            slot = self._generating
        self._refill(slot, len(self._active) - 1)
        self._active.pop()

    def _refill(self, slot: int, source: int) -> None:
        if slot != source:
            row = self._active[source]
            if row.computed:
                self._cache().move(source, slot, row.computed)
            self._active[slot] = row

    def _fail_all(self, error: GatewayError, *, waiting: bool = True) -> None:
        rows = [*self._active, *(self._waiting if waiting else ())]
        self._active, self._generating = [], 0
        if waiting:
            self._waiting.clear()
        self._alive.difference_update(rows)
        _deliver([(row, error) for row in rows])


def _deliver(news: Sequence[tuple[Row, Delta | GatewayError]]) -> None:
    """One call into each event loop for everything a step has made."""
    for loop in {row.loop for row, _ in news}:
        _call(loop, _post, [(row, item) for row, item in news if row.loop is loop])


def _post(news: Sequence[tuple[Row, Delta | GatewayError]]) -> None:
    for row, item in news:
        row.post(item)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        # The loop is closed: nobody is left to be told.
        log.debug("an event loop was closed before its rows were done")


def _settle(ready: asyncio.Future[None], error: Exception | None) -> None:
    if ready.done():
        return
    if error is None:
        ready.set_result(None)
    else:
        ready.set_exception(error)
