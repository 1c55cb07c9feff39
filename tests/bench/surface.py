"""What the OpenAI surface costs: grammars against free text, scored prompts against prefill alone, `/tokenize` against
a bare two-hop application. Ours on both sides of the first two: the same engine, in the same run, in turns."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import load
from tests.bench.doors import MESSAGE
from tests.bench.engines import BATCHES_BETTER, model_config
from tests.bench.figures import Figure, Figures
from tests.bench.load import Address
from tests.bench.processes import running
from tests.running import free_port, serving

TOKENS = 64
AT_ONCE = 8
PROMPT = 1000
"""Tokens of a scored prompt."""
ROUNDS = 3
SCHEMA = {
    "type": "object",
    # Longer than the answers are: whoever is guided makes as many tokens as whoever is not.
    "properties": {"story": {"type": "string", "minLength": 2000}},
    "required": ["story"],
    "additionalProperties": False,
}


def measure(figures: Figures) -> None:
    """Fill in the surface's figures. A minute for each engine."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for backend in BATCHES_BETTER:
            config, model = model_config(backend, folder)
            port = free_port()
            with serving(config, port, {"GATEWAY_API_KEYS": "bench-key"}):
                lane = f"/m/{model}"
                chat = Address(port, f"{lane}/v1/chat/completions", "bench-key")
                free, guided = load.run(_guided(chat, model))
                completions = Address(port, f"{lane}/v1/completions", "bench-key")
                prefill, scored = load.run(_scored(completions, model))
                figures.add(
                    Figure(f"{backend} float32", f"guided by a JSON schema, {AT_ONCE} at once", "tok/s", guided, free,
                           "free text", target=0.85, bound="least"),
                    Figure(f"{backend} float32", f"echo and logprobs of {PROMPT} tokens", "ms", scored, prefill,
                           "prefill alone", target=2.0),
                )  # fmt: skip
                if backend == "torch":
                    _tokenize(figures, folder, Address(port, "/tokenize", "bench-key"), model)


async def _guided(address: Address, model: str) -> tuple[float, float]:
    """Tokens a second without and with a schema."""
    schema = {"type": "json_schema", "json_schema": {"name": "story", "strict": True, "schema": SCHEMA}}
    kinds: list[dict[str, Any]] = [{}, {"response_format": schema}]
    rates: list[list[float]] = [[], []]
    for number in range(ROUNDS + 1):
        for kind, found in zip(kinds, rates, strict=True):
            answers, took = await load.at_once(address, _chats(address, model, kind))
            for answer in answers:
                if b'"completion_tokens":%d' % TOKENS not in answer.body():
                    raise RuntimeError(f"an answer is not {TOKENS} tokens long: {answer.body()[-300:]!r}")
            # The first round compiles grammars and wakes threads.
            if number:
                found.append(TOKENS * len(answers) / took)
    return median(rates[0]), median(rates[1])


def _chats(address: Address, model: str, kind: dict[str, Any]) -> list[bytes]:
    return [
        address.request(
            {
                "model": model,
                "messages": [{"role": "user", "content": f"{number}: a long story about {number + 3} ships as JSON."}],
                "max_tokens": TOKENS,
                "temperature": 0,
                **({} if kind else {"ignore_eos": True}),
                **kind,
            }
        )
        for number in range(AT_ONCE)
    ]


async def _scored(address: Address, model: str) -> tuple[float, float]:
    """Milliseconds of a prompt's prefill alone, and of its scores; no prompt is asked twice."""
    rng = random.Random(0)
    times: list[list[float]] = [[], []]
    for number in range(2 * ROUNDS + 1):
        for kind, found in zip(({}, {"echo": True, "logprobs": 1}), times, strict=True):
            ids = [rng.randrange(1000, 40000) for _ in range(PROMPT)]
            body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0, **kind}
            answer = await load.one(address, address.request(body))
            if number:
                found.append(answer.whole_s * 1e3)
    return median(times[0]), median(times[1])


def _tokenize(figures: Figures, folder: Path, address: Address, model: str) -> None:
    request = {"model": model, "prompt": MESSAGE}
    body = load.run(load.one(address, address.request(request))).body()
    (folder / "unary.json").write_bytes(body)
    (folder / "stream.json").write_text(json.dumps(["data: {}\n\n"]))
    port = free_port()
    files = ("--unary", str(folder / "unary.json"), "--stream", str(folder / "stream.json"))
    with running("tests.bench.bare", "--port", str(port), *files):
        times: tuple[list[float], list[float]] = load.run(_turns(address, Address(port, "/two-hop/"), request))
    figures.add(
        Figure("wide door", "/tokenize of 300 characters, p50", "ms", median(times[0]), median(times[1]),
               "bare two-hop", target=1.5)
    )  # fmt: skip


async def _turns(ours: Address, bare: Address, request: dict[str, Any]) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(8):
        pairs = list(zip((ours, bare), found, strict=True))
        for address, into in pairs if number % 2 == 0 else reversed(pairs):
            times = [answer.whole_s for answer in await load.in_turn(address, address.request(request), 100)]
            if number:
                into.append(median(times) * 1e3)
    return found
