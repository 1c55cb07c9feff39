"""The engines through our doors: vLLM against itself under a plain uvicorn, and how well each engine batches.

One at a time: two cores hold no two engines under load.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from tests.bench import load
from tests.bench.figures import Figure, Figures
from tests.bench.load import Address
from tests.bench.processes import running
from tests.running import free_port, serving

SHIPPED = Path(__file__).parents[2] / "deployments" / "local.yaml"
TOKENS = 64
AT_ONCE = 16

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
    first_ms: float
    """Median time to the first event, one stream at a time."""


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
    speeds: dict[str, Speed] = {}
    before = _alone(config, name)
    port = free_port()
    with serving(config, port, {"GATEWAY_API_KEYS": "bench-key"}):
        lane = Address(port, f"/m/{name}/v1/chat/completions", "bench-key")
        wide = Address(port, "/v1/chat/completions", "bench-key")
        speeds["fast lane"] = load.run(_speed(lane, name))
        speeds["wide door"] = load.run(_speed(wide, name))
    # Before and after: a machine that others use too is not as fast from one minute to the next. Side by side, with
    # whoever is not measured stopped, would be no better: a cluster that was stopped has much to catch up with.
    after, beside_idle = _alone_and_beside_an_idle_gateway(config, name, folder)
    raw = Speed(*(sum(pair) / 2 for pair in zip(astuple(before), astuple(after), strict=True)))
    for door, least in (("fast lane", 0.95), ("wide door", 0.9)):
        speed = speeds[door]
        figures.add(
            Figure("vllm bf16", f"{door}: streams of {TOKENS}, {AT_ONCE} at once", "tok/s", speed.tokens_16,
                   raw.tokens_16, "its own uvicorn", target=least, bound="least"),
            Figure("vllm bf16", f"{door}: time to first token", "ms", speed.first_ms, raw.first_ms, "its own uvicorn",
                   "difference", 8.0),
        )  # fmt: skip
    # What of that is the way through a gateway, and what is that one runs at all: both cores compute all the time.
    figures.add(
        Figure("vllm bf16", "its own uvicorn beside an idle gateway", "tok/s", beside_idle.tokens_16, after.tokens_16,
               "a minute before"),
        Figure("vllm bf16", "its own uvicorn beside an idle gateway: first token", "ms", beside_idle.first_ms,
               after.first_ms, "a minute before", "difference"),
    )  # fmt: skip


def _alone(config: Path, name: str) -> Speed:
    """vLLM's own app under its own uvicorn."""
    with _own_uvicorn(config, name) as address:
        return load.run(_speed(address, name))


def _alone_and_beside_an_idle_gateway(config: Path, name: str, folder: Path) -> tuple[Speed, Speed]:
    """The same twice, the second time with a gateway on the machine that nobody asks."""
    echo = folder / "echo.yaml"
    echo.write_text(yaml.safe_dump({"models": {"echo": {"backend": "echo"}}}))
    with _own_uvicorn(config, name) as address:
        alone = load.run(_speed(address, name))
        with serving(echo, free_port()):
            return alone, load.run(_speed(address, name))


@contextmanager
def _own_uvicorn(config: Path, name: str) -> Iterator[Address]:
    port = free_port()
    with running("tests.bench.vllm_alone", "--port", str(port), "--config", str(config), "--model", name):
        yield Address(port, "/v1/chat/completions")


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
    # First tokens of short answers: many in little time.
    short = _requests(address, model, 1, tokens=2)[0]
    firsts = [answer.first_s * 1e3 for answer in await load.in_turn(address, short, 25)]
    rates: list[float] = []
    for _ in range(5):
        answers, took = await load.at_once(address, _requests(address, model, AT_ONCE))
        rates.append(_whole(answers) / took)
    return Speed(median(rates), TOKENS / median([answer.whole_s for answer in alone]), median(firsts))


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
