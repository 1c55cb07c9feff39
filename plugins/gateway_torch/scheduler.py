"""The thread that computes: admits rows, runs one step for all that generate and a bounded piece of prompts, and so on.

Batches change between steps, never within: a request that comes waits for one step and one piece of prompt at most.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch

from gateway.engine import Delta, FinishReason
from gateway.errors import BackendFailed, ConfigError, GatewayError, Unavailable
from gateway_torch.batch import Batch
from gateway_torch.cache import RowCache, room
from gateway_torch.model import LanguageModel
from gateway_torch.options import TorchOptions
from gateway_torch.prefill import pick
from gateway_torch.row import Row
from gateway_torch.sampling import choose, ranked

log = logging.getLogger("gateway.torch")

DEFAULT_CACHE_TOKENS = 16384

FAILURES = 3
"""After so many failed steps in a row the backend says that it is ill."""

News = list[tuple[Row, Delta | GatewayError]]
Result = TypeVar("Result")


class Scheduler:
    """Owns the model and the rows in flight. Made and started in the event loop; computes in its own thread."""

    def __init__(
        self, load: Callable[[], LanguageModel], options: TorchOptions, threads: int, eos: frozenset[int]
    ) -> None:
        self._load = load
        self._options = options
        self._threads = threads
        self._eos = eos
        self._inbox: SimpleQueue[Row | Callable[[LanguageModel], None] | None] = SimpleQueue()
        self._alive: set[Row] = set()
        self._arrivals = 0
        self._failures = 0
        self._stopping = False
        self._closed = False
        self._thread: threading.Thread | None = None

    # The event loop's side.

    async def start(self) -> LanguageModel:
        """Load the model in the thread that will use it. Raises what loading raised."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[LanguageModel] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, ready), name="gateway-torch", daemon=True)
        self._thread.start()
        return await ready

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

    async def change(self, function: Callable[[LanguageModel], None]) -> None:
        """Call a quick function of the model between two steps. Raises what it raises, Unavailable where the thread has
        ended."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def change(model: LanguageModel) -> None:
            try:
                function(model)
            except Exception as error:
                _call(loop, _settle, done, error)
            else:
                _call(loop, _settle, done, None)

        self._inbox.put(change)
        # The thread may end meanwhile and leave the change undone.
        while not (await asyncio.wait([done], timeout=0.5))[0]:
            if self._closed or not self.healthy:
                raise Unavailable("the torch engine is not running")
        await done

    async def drained(self, adapter: str) -> None:
        """Wait until no row of this adapter is in flight."""
        while any(row.adapter == adapter for row in list(self._alive)) and not self._closed:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    @property
    def healthy(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and self._failures < FAILURES

    def running(self) -> int:
        """Rows that wait or are computed. A cancelled row counts until the thread has let go of it."""
        return len(self._alive)

    # The thread's side.

    def _run(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[LanguageModel]) -> None:
        # The number of compute threads belongs to the thread that asks for it, so it is set here.
        torch.set_num_threads(self._threads)
        waiting: deque[Row] = deque()
        try:
            with torch.inference_mode():
                model = self._load()
                turns = _Turns(model, self._make_batch(model), self._options, self._eos, waiting, self._alive)
                turns.warm_up()
                _call(loop, _settle, ready, model)
                while not self._stopping:
                    self._receive(waiting, model, idle=turns.idle)
                    self._try(turns, model)
                turns.fail(Unavailable("the torch engine has stopped"))
        except Exception as error:
            if ready.done():
                log.exception("the torch engine's thread ended")
            _call(loop, _settle, ready, error)
        finally:
            self._closed = True
            self._receive(waiting, None, idle=False)
            rows = list(self._alive)
            self._alive.clear()
            _deliver([(row, Unavailable("the torch engine has stopped")) for row in rows])

    def _make_batch(self, model: LanguageModel) -> Batch:
        needed = room(model.max_model_len)
        limit = self._options.cache_tokens or max(DEFAULT_CACHE_TOKENS, needed)
        if limit < needed:
            raise ConfigError(
                f"options.cache_tokens: {limit} cannot hold one sequence of {model.max_model_len} tokens: "
                f"at least {needed}, or lower max_model_len"
            )
        return Batch(RowCache(limit, model.device))

    def _receive(self, waiting: deque[Row], model: LanguageModel | None, *, idle: bool) -> None:
        """Take what has come; sleep until something does where there is nothing to do."""
        try:
            while True:
                item = self._inbox.get(block=idle)
                idle = False
                if isinstance(item, Row):
                    waiting.append(item)
                elif item is not None and model is not None:
                    item(model)
        except Empty:
            return

    def _try(self, turns: _Turns, model: LanguageModel) -> None:
        try:
            turns.turn()
            self._failures = 0
        except Exception as error:
            log.exception("a step of the torch engine failed")
            self._failures += 1
            turns.fail(BackendFailed(f"the torch engine failed: {type(error).__name__}"))
            turns.batch = self._make_batch(model)


class _Turns:
    """What the thread does, turn by turn: one step, one piece of prompts, the news delivered."""

    def __init__(
        self,
        model: LanguageModel,
        batch: Batch,
        options: TorchOptions,
        eos: frozenset[int],
        waiting: deque[Row],
        alive: set[Row],
    ) -> None:
        self.model = model
        self.batch = batch
        self._options = options
        self._eos = eos
        self._waiting = waiting
        self._alive = alive
        self._oldest_leads = False

    @property
    def idle(self) -> bool:
        return not self.batch.rows and not self._waiting

    def warm_up(self) -> None:
        """A first step finds out at the start what this model cannot do, and wakes the libraries' threads."""
        self.batch.cache.reserve(1, 1, 0)
        self.model.step(self.batch.cache, [0], [0])

    def turn(self) -> None:
        self._drop_cancelled()
        self._admit()
        self._give_way()
        if self.batch.generating:
            self._step()
        if self.batch.prompts:
            self._piece()

    def fail(self, error: GatewayError) -> None:
        """Tell everyone in the batch. The batch is of no use afterwards."""
        rows, self.batch.rows = self.batch.rows, []
        self._alive.difference_update(rows)
        _deliver([(row, error) for row in rows])

    def _drop_cancelled(self) -> None:
        for row in [row for row in self.batch.rows if row.cancelled]:
            self._leave(row)
        for row in [row for row in self._waiting if row.cancelled]:
            self._waiting.remove(row)
            self._alive.discard(row)

    def _leave(self, row: Row) -> None:
        self.batch.remove(row)
        self._alive.discard(row)

    def _admit(self) -> None:
        while self._waiting and len(self.batch.rows) < self._options.max_batch_size:
            # One token more than it has: a row that would give way at once is not admitted.
            if not self.batch.fits(1, max(self.batch.longest, len(self._waiting[0].tokens)) + 1):
                return
            self.batch.add(self._waiting.popleft())

    def _give_way(self) -> None:
        """Make room for this turn's tokens; where there is none, the youngest wait and are computed again later."""
        while not self.batch.fits(0, self.batch.longest):
            row = max(self.batch.rows, key=lambda row: row.arrival)
            self.batch.remove(row)
            row.restart()
            self._waiting.appendleft(row)
        if self.batch.rows:
            self.batch.reserve()

    def _step(self) -> None:
        rows = self.batch.generating
        tokens, lengths = [row.tokens[-1] for row in rows], [row.computed for row in rows]
        self.model.adapters.plan([row.adapter for row in rows])
        logits = self.model.step(self.batch.cache, tokens, lengths)
        for row in rows:
            row.computed += 1
        self._advance(rows, logits)

    def _piece(self) -> None:
        """Compute a bounded piece of the prompts that are not through yet."""
        self._oldest_leads = not self._oldest_leads
        picked, width = pick(self.batch.prompts, self._options.prefill_tokens, oldest=self._oldest_leads)
        slots = sorted(self.batch.rows.index(row) for row in picked)
        rows = [self.batch.rows[slot] for slot in slots]
        starts = [row.computed for row in rows]
        pieces = [row.tokens[row.computed : row.computed + width] for row in rows]
        scored = rows[0].scored
        self.model.adapters.plan([row.adapter for row in rows])
        logits = self.model.chunk(self.batch.cache, slots, pieces, starts, every=scored)
        for row, piece in zip(rows, pieces, strict=True):
            row.computed += len(piece)
        if scored:
            self._score(rows, pieces, logits)
            # Those that are to be continued go on below; those that were only to be scored have left.
        through = [index for index, row in enumerate(rows) if not row.pending and row.sampling is not None]
        if through:
            for index in through:
                self.batch.promote(rows[index])
            last = logits[:, -1][torch.tensor(through, device=logits.device)]
            self._advance([rows[index] for index in through], last)

    def _advance(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        """Give each row its next token, tell its reader, and let those go that are done."""
        news: News = []
        for row, token, report in zip(rows, *choose(logits, rows), strict=True):
            failure = row.failure or _accept(row, token)
            if failure is not None:
                news.append((row, failure))
                self._leave(row)
                continue
            row.tokens.append(token)
            finish = self._finish(row, token)
            scores = row.scores if row.scored else None
            row.scored = False
            news.append((row, Delta((token,), None if report is None else (report,), finish, prompt_logprobs=scores)))
            if finish is not None:
                self._leave(row)
        _deliver(news)

    def _finish(self, row: Row, token: int) -> FinishReason | None:
        if row.sampling is None:
            return None
        if (token in self._eos and not row.sampling.ignore_eos) or token in row.sampling.stop_token_ids:
            return "stop"
        return "length" if row.generated >= row.sampling.max_tokens else None

    def _score(self, rows: Sequence[Row], pieces: Sequence[Sequence[int]], logits: torch.Tensor) -> None:
        news: News = []
        for row, piece, line in zip(rows, pieces, logits, strict=True):
            start = row.computed - len(piece)
            targets = row.tokens[start + 1 : row.computed + 1]
            if targets:
                first = line.shape[0] - len(piece)
                ids = torch.tensor(targets, device=line.device)
                row.scores.extend(ranked(line[first : first + len(targets)], ids, row.top))
            if not row.pending and row.sampling is None:
                self._leave(row)
                news.append((row, Delta((), None, "length")))
        _deliver(news)


def _accept(row: Row, token: int) -> GatewayError | None:
    if row.rules is not None:
        try:
            row.rules.accept(token)
        except GatewayError as error:
            return error
    return None


def _deliver(news: News) -> None:
    """One call into each event loop for everything a step has made."""
    for loop in {row.loop for row, _ in news}:
        _call(loop, _post, [(row, item) for row, item in news if row.loop is loop])


def _post(news: News) -> None:
    for row, item in news:
        row.post(item)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        # The loop is closed: nobody is left to be told.
        log.debug("an event loop was closed before its rows were done")


def _settle(ready: asyncio.Future[Result], outcome: Result | Exception) -> None:
    if ready.done():
        return
    if isinstance(outcome, Exception):
        ready.set_exception(outcome)
    else:
        ready.set_result(outcome)
