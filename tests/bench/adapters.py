"""What adapters cost, each engine in a process of its own: beside the same engine without room for them, beside its own
base, to load, and to go from one to another.

python -m tests.bench.adapters torch onnx vllm
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.adapters.probe import probe
from gateway.adapters.verify import Base, verify
from gateway.backend import Backend, BackendContext, silent
from gateway.cache import cache_root
from gateway.config import AdaptersSpec, ModelSpec
from gateway.plugins import load
from gateway.sources import resolve
from gateway.testing import AppClient
from tests.bench.figures import Figure, Figures
from tests.conftest import SMOLLM2, SMOLLM2_SHA256
from tests.loras import write_lora

BACKENDS = ("vllm", "onnx", "torch")
AT_ONCE, TOKENS, ROUNDS, ADAPTERS = 16, 48, 3, 4


@dataclass(frozen=True, slots=True)
class Cost:
    """One engine's, in tokens a second and seconds; the best of rounds that were taken in turns, since what else the
    machine does only takes away."""

    without_1: float
    """An engine without room for adapters, one request at a time."""
    room_1: float
    """One with room, four adapters loaded, asked for its base."""
    without_16: float
    room_16: float
    adapters_16: float
    """Requests spread over four adapters."""
    mixed_16: float
    """Half of them to the base."""
    load_s: float
    """The slowest: files on this machine verified, loaded and probed."""
    same_s: float
    """A request of two tokens, always the same adapter's."""
    switched_s: float
    """The same, each time another adapter's."""


def measure(figures: Figures) -> None:
    """Fill in what adapters cost. Two minutes for each engine."""
    for backend in BACKENDS:
        command = [sys.executable, "-m", "tests.bench.adapters", backend]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise RuntimeError(f"adapters on {backend} were not measured: {done.stderr[-1000:]}")
        cost = Cost(**json.loads(done.stdout.splitlines()[-1])[backend])
        group, base = f"{backend} adapters", "its base"
        without = "without room"
        figures.add(
            Figure(group, f"{AT_ONCE} at once over {ADAPTERS} adapters", "tok/s", cost.adapters_16, cost.room_16, base,
                   target=0.7, bound="least"),
            Figure(group, f"{AT_ONCE} at once, half of them the base's", "tok/s", cost.mixed_16, cost.room_16, base),
            Figure(group, "base beside loaded adapters, 16 at once", "tok/s", cost.room_16, cost.without_16, without,
                   target=0.95, bound="least"),
            Figure(group, "base beside loaded adapters, one at a time", "tok/s", cost.room_1, cost.without_1, without,
                   target=0.95, bound="least"),
            Figure(group, "to verify, load and probe one", "s", cost.load_s, how="ours", target=2.0),
            Figure(group, "a request to another adapter each time", "ms", cost.switched_s * 1e3, cost.same_s * 1e3,
                   "the same each time", target=1.2),
        )  # fmt: skip


async def cost_of(backend: str, folder: Path) -> Cost:
    """Both engines of one kind stand side by side; only one of them computes at any time."""
    plain, roomy = await _started(backend, folder, None), await _started(backend, folder, AdaptersSpec())
    try:
        with tempfile.TemporaryDirectory() as scratch:
            ids, loads = await _load_some(roomy, folder, Path(scratch))
        without, room = AppClient(plain.app), AppClient(roomy.app)
        kinds: dict[str, tuple[AppClient, list[str]]] = {
            "without": (without, ["m"]), "room": (room, ["m"]), "adapters": (room, ids),
            "mixed": (room, [name for adapter in ids for name in ("m", adapter)]),
        }  # fmt: skip
        for client, names in kinds.values():
            await _rate(client, names, AT_ONCE)
        many: dict[str, list[float]] = {kind: [] for kind in kinds}
        few: dict[str, list[float]] = {kind: [] for kind in ("without", "room")}
        for _ in range(ROUNDS):
            for kind, (client, names) in kinds.items():
                many[kind].append(await _rate(client, names, AT_ONCE))
            for kind in few:
                client, names = kinds[kind]
                few[kind].append(await _rate(client, names, 1))
        print(f"{backend}: {many} {few}", file=sys.stderr)
        same, switched = await _waits(room, ids[:1] * ADAPTERS), await _waits(room, ids)
        return Cost(
            max(few["without"]), max(few["room"]), max(many["without"]), max(many["room"]),
            max(many["adapters"]), max(many["mixed"]), max(loads), same, switched,
        )  # fmt: skip
    finally:
        await asyncio.gather(plain.stop(), roomy.stop())


async def _started(backend: str, folder: Path, adapters: AdaptersSpec | None) -> Backend:
    options: dict[str, Any] = {"kv_cache_gb": 0.5} if backend == "vllm" else {}
    spec = ModelSpec(backend=backend, adapters=adapters, max_model_len=1024, options=options)
    context = BackendContext("m", spec, folder, digest=folder.name.removesuffix("-hf1"))
    offer = load().backend(backend)
    if offer.prepare is not None:
        await asyncio.to_thread(offer.prepare, context, silent)
    engine = offer.factory(context)
    began = time.perf_counter()
    await engine.start()
    room = "without room" if adapters is None else "with room"
    print(f"{backend} {room}: ready after {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return engine


async def _load_some(engine: Backend, folder: Path, scratch: Path) -> tuple[list[str], list[float]]:
    """Ids of four adapters, now loaded, and the seconds each took."""
    ids: list[str] = []
    loads: list[float] = []
    for seed in range(ADAPTERS):
        files = write_lora(scratch / str(seed), folder, id=f"m:{seed}", seed=seed, rank=8, scale=0.02)
        began = time.perf_counter()
        await asyncio.to_thread(verify, files.path, Base("m", "", folder, 16))
        await engine.load_adapter(files)
        await probe(engine.app, "m", files.id)
        loads.append(time.perf_counter() - began)
        ids.append(files.id)
    return ids, loads


async def _rate(client: AppClient, names: list[str], count: int) -> float:
    """Output tokens per second of so many greedy completions at once, spread over these models."""
    asked = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    bodies = [{**asked, "model": names[n % len(names)], "prompt": f"Chapter {n}. It was a"} for n in range(count)]
    began = time.perf_counter()
    await asyncio.gather(*[_asked(client, body) for body in bodies])
    return count * TOKENS / (time.perf_counter() - began)


async def _waits(client: AppClient, names: list[str]) -> float:
    """Seconds of the quickest round of short requests one after the other, each to the next of these models."""
    rounds: list[float] = []
    for _ in range(6):
        began = time.perf_counter()
        for name in names:
            await _asked(client, {"model": name, "prompt": "It was a", "max_tokens": 2, "temperature": 0})
        rounds.append((time.perf_counter() - began) / len(names))
    return min(rounds)


async def _asked(client: AppClient, body: dict[str, Any]) -> None:
    answer = await client.post("/v1/completions", body)
    if answer.status != 200:
        raise RuntimeError(answer.body)


async def main() -> None:
    folder = resolve(SMOLLM2, find=load().source, cache=cache_root(), sha256=SMOLLM2_SHA256, report=silent).path
    print(json.dumps({backend: asdict(await cost_of(backend, folder)) for backend in sys.argv[1:] or BACKENDS}))


if __name__ == "__main__":
    asyncio.run(main())
