"""What adapters cost: 16 requests at once over 4 adapters beside 16 to the base, in this process, in one run.

python -m tests.bench.adapters torch onnx
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from gateway.backend import BackendContext, silent
from gateway.cache import cache_root
from gateway.config import AdaptersSpec, ModelSpec
from gateway.plugins import load
from gateway.sources import resolve
from gateway.testing import AppClient
from tests.conftest import SMOLLM2, SMOLLM2_SHA256
from tests.loras import write_lora

REQUESTS, TOKENS, ROUNDS = 16, 48, 3


async def rate(client: AppClient, names: list[str]) -> float:
    """Output tokens per second of 16 greedy completions, spread over these models."""
    asked = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    bodies = [{**asked, "model": names[n % len(names)], "prompt": f"Chapter {n}. It was a"} for n in range(REQUESTS)]
    started = time.perf_counter()
    answers = await asyncio.gather(*[client.post("/v1/completions", body) for body in bodies])
    if any(answer.status != 200 for answer in answers):
        raise RuntimeError(next(answer.body for answer in answers if answer.status != 200))
    return REQUESTS * TOKENS / (time.perf_counter() - started)


async def measure(backend: str, folder: Path) -> None:
    """Print one engine's rates, rounds of both kinds in turn, and how long an adapter took to load."""
    digest = folder.name.removesuffix("-hf1")
    spec = ModelSpec(backend=backend, adapters=AdaptersSpec(), max_model_len=1024)
    context = BackendContext("m", spec, folder, digest=digest)
    offer = load().backend(backend)
    if offer.prepare is not None:
        await asyncio.to_thread(offer.prepare, context, silent)
    engine = offer.factory(context)
    await engine.start()
    try:
        loads: list[float] = []
        ids: list[str] = []
        with tempfile.TemporaryDirectory() as scratch:
            for seed in range(4):
                files = write_lora(Path(scratch, str(seed)), folder, id=f"m:{seed}", seed=seed, rank=8, scale=0.02)
                started = time.perf_counter()
                await engine.load_adapter(files)
                loads.append(time.perf_counter() - started)
                ids.append(files.id)
        client = AppClient(engine.app)
        await rate(client, ["m", *ids])
        pairs = [(await rate(client, ["m"]), await rate(client, ids)) for _ in range(ROUNDS)]
        base, adapters = (max(column) for column in zip(*pairs, strict=True))
        print(
            f"{backend}: base {base:.0f} tokens/s, 4 adapters {adapters:.0f} ({adapters / base:.2f} of it); "
            f"an adapter loads in {min(loads):.2f} to {max(loads):.2f} s",
            flush=True,
        )
    finally:
        await engine.stop()


async def main() -> None:
    folder = resolve(SMOLLM2, find=load().source, cache=cache_root(), sha256=SMOLLM2_SHA256, report=silent).path
    for backend in sys.argv[1:] or ["torch", "onnx"]:
        await measure(backend, folder)


if __name__ == "__main__":
    asyncio.run(main())
