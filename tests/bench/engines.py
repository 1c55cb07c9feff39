"""The engines through our doors: vLLM against itself under a plain uvicorn, and how well each engine batches.

One at a time, or in turns while the other stands still: two cores hold no two engines under load.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil
import yaml

from tests.bench import load
from tests.bench.figures import Figure, Figures
from tests.bench.load import Address
from tests.bench.processes import running
from tests.running import free_port, serving

SHIPPED = Path(__file__).parents[2] / "deployments" / "local.yaml"
TOKENS = 64
AT_ONCE = 16
TURNS = 6
"""Of vLLM, through each address."""

BATCHES_BETTER = {"vllm": 7.0, "torch": 5.0, "onnx": 3.0}
"""Tokens per second at 16 against at 1, at least."""
STATIC_SHARE = 0.8
"""The aim for the share of the library's own static batch."""


@dataclass(frozen=True, slots=True)
class Speed:
    """One server's, through one address."""

    tokens_16: float
    """Output tokens a second, 16 streams at once."""
    tokens_1: float
    """One stream at a time."""


def measure(figures: Figures) -> None:
    """Fill in the engines' figures. A minute for each server that is started."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _vllm_against_itself(figures, folder)
        for backend in BATCHES_BETTER:
            _batching(figures, folder, backend)


def model_config(backend: str, folder: Path, **changes: Any) -> tuple[Path, str]:
    """The shipped model of one backend, alone in a config of its own: (the file, the model's name)."""
    shipped = yaml.safe_load(SHIPPED.read_text())
    name, spec = next((name, spec) for name, spec in shipped["models"].items() if spec["backend"] == backend)
    path = folder / f"{backend}{'-changed' if changes else ''}.yaml"
    path.write_text(yaml.safe_dump({"models": {name: {**spec, **changes}}}))
    return path, name


def _vllm_against_itself(figures: Figures, folder: Path) -> None:
    config, name = model_config("vllm", folder, dtype="bfloat16", options={"enforce_eager": True})
    port, own_port = free_port(), free_port()
    own = Address(own_port, "/v1/chat/completions")
    doors = {
        "fast lane": Address(port, f"/m/{name}/v1/chat/completions", "bench-key"),
        "wide door": Address(port, "/v1/chat/completions", "bench-key"),
    }
    alone, beside_idle = _Turns(own), _Turns(own)
    through = {door: _Turns(address) for door, address in doors.items()}
    with (
        running("tests.bench.vllm_alone", "--port", str(own_port), "--config", str(config), "--model", name) as peer,
        serving(config, port, {"GATEWAY_API_KEYS": "bench-key"}) as gateway,
    ):
        theirs = [peer, *peer.children(recursive=True)]
        ours = [psutil.Process(gateway.process.pid), *gateway.descendants()]
        for address in (own, *doors.values()):
            load.run(load.at_once(address, _requests(address, name, 2)))
        # In turns: a machine that others use too is not as fast from one minute to the next.
        for turn in range(TURNS):
            with _standing_still(ours):
                load.run(alone.take(name))
            with _standing_still(theirs):
                # Neither door is always the first after standing still, when Ray makes up for what it missed.
                for turns in list(through.values())[:: -1 if turn % 2 else 1]:
                    load.run(turns.take(name))
            load.run(beside_idle.take(name))
    for door, least in (("fast lane", 0.95), ("wide door", 0.9)):
        turns = through[door]
        figures.add(
            Figure("vllm bf16", f"{door}: streams of {TOKENS}, {AT_ONCE} at once", "tok/s", turns.tokens, alone.tokens,
                   "its own uvicorn", target=least, bound="least"),
            Figure("vllm bf16", f"{door}: time to first token", "ms", turns.first_ms, alone.first_ms,
                   "its own uvicorn", "difference", 8.0),
        )  # fmt: skip
    # What of that is the way through a gateway, and what is that one runs at all: both cores compute all the time.
    figures.add(
        Figure("vllm bf16", "its own uvicorn beside an idle gateway", "tok/s", beside_idle.tokens, alone.tokens,
               "its own uvicorn"),
        Figure("vllm bf16", "its own uvicorn beside an idle gateway: first token", "ms", beside_idle.first_ms,
               alone.first_ms, "its own uvicorn", "difference"),
    )  # fmt: skip


@dataclass(slots=True)
class _Turns:
    """What one address was measured at so far."""

    address: Address
    rates: list[float] = field(default_factory=list[float])
    firsts_ms: list[float] = field(default_factory=list[float])

    async def take(self, model: str) -> None:
        """16 answers at once, then some one at a time."""
        answers, took = await load.at_once(self.address, _requests(self.address, model, AT_ONCE))
        self.rates.append(_whole(answers) / took)
        # First tokens of short answers: many in little time. Last, when whoever stood still has caught up.
        short = _requests(self.address, model, 1, tokens=2)[0]
        self.firsts_ms += [answer.first_s * 1e3 for answer in await load.in_turn(self.address, short, 24)]

    @property
    def tokens(self) -> float:
        """Output tokens a second. A mean: what became slower over the turns did so for every address."""
        return mean(self.rates)

    @property
    def first_ms(self) -> float:
        return median(self.firsts_ms)


@contextmanager
def _standing_still(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Two cores hold no two servers: these are stopped inside the block, with a moment afterwards to catch up."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        time.sleep(6)


def _batching(figures: Figures, folder: Path, backend: str) -> None:
    config, name = model_config(backend, folder)
    port = free_port()
    with serving(config, port, {"GATEWAY_API_KEYS": "bench-key"}):
        lane = Address(port, f"/m/{name}/v1/chat/completions", "bench-key")
        speed: Speed = load.run(_speed(lane, name))
    figures.add(
        Figure(f"{backend} float32", f"tokens a second, {AT_ONCE} at once", "tok/s", speed.tokens_16, speed.tokens_1,
               "one at a time", target=BATCHES_BETTER[backend], bound="least")
    )  # fmt: skip
    if backend != "vllm":
        static = _static(config, name)
        figures.add(
            Figure(f"{backend} float32", "share of the library's static batch", "tok/s", speed.tokens_16, static,
                   "static batch of 16", target=STATIC_SHARE, bound="least")
        )  # fmt: skip


async def _speed(address: Address, model: str) -> Speed:
    await load.at_once(address, _requests(address, model, 2))
    alone = await load.in_turn(address, _requests(address, model, 1)[0], 3)
    _whole(alone)
    rates: list[float] = []
    for _ in range(5):
        answers, took = await load.at_once(address, _requests(address, model, AT_ONCE))
        rates.append(_whole(answers) / took)
    return Speed(median(rates), TOKENS / median([answer.whole_s for answer in alone]))


def _requests(address: Address, model: str, count: int, tokens: int = TOKENS) -> list[bytes]:
    """Streams of exactly `tokens` tokens; prompts differ, so that no cache makes 16 of them one."""
    return [
        address.request(
            {
                "model": model,
                "messages": [{"role": "user", "content": f"{number}: tell a long story about {number + 3} ships."}],
                "max_tokens": tokens,
                "ignore_eos": True,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        for number in range(count)
    ]


def _whole(answers: Sequence[load.Answer]) -> int:
    """Tokens of these answers, by their usage. Raises RuntimeError where one has not as many as were asked for."""
    for answer in answers:
        if b'"completion_tokens":%d' % TOKENS not in answer.body():
            raise RuntimeError(f"an answer is not {TOKENS} tokens long: …{answer.body()[-300:]!r}")
    return TOKENS * len(answers)


def _static(config: Path, name: str) -> float:
    command = [sys.executable, "-m", "tests.bench.static_batch", "--config", str(config), "--model", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"the static batch of {name} failed: {done.stderr[-500:]}")
    return float(done.stdout.split()[-1])
