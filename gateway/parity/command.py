"""`gateway parity`: connects, reads, compares, shows. Imported when the command runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import msgspec

from gateway import console
from gateway.errors import ConfigError
from gateway.parity.compare import Pair, check_tokens, compare
from gateway.parity.reading import PromptFile, Reading, load_prompts, read, tokenize
from gateway.testing.served import connect, find


def parity(url: str, models: str, api_key: str, prompts: Path | None, max_tokens: int, *, as_json: bool) -> None:
    """Compare served models with each other and print what was found. Raises ConfigError."""
    names = list(dict.fromkeys(name.strip() for name in models.split(",") if name.strip()))
    if len(names) < 2:
        raise ConfigError("--models needs two or more, with commas between them: smollm2,smollm2-onnx")
    asked = load_prompts(prompts)
    readings = asyncio.run(_read_all(url, names, api_key, asked, max_tokens))
    labels = [prompt.label() for prompt in asked]
    pairs = [compare(one, other, labels, readings[one], readings[other]) for one, other in combinations(names, 2)]
    if as_json:
        return console.print_json(
            {"prompts": len(asked), "max_tokens": max_tokens, "pairs": msgspec.to_builtins(pairs)}
        )
    return _show(pairs, len(asked))


async def _read_all(
    url: str, names: Sequence[str], api_key: str, prompts: Sequence[PromptFile], max_tokens: int
) -> dict[str, list[Reading]]:
    readings: dict[str, list[Reading]] = {}
    async with connect(url, api_key) as http:
        found = await find(http, url, names)
        tokens = {served.model: await tokenize(served, prompts) for served in found}
        # Before minutes of reading, not after them.
        check_tokens([prompt.label() for prompt in prompts], tokens)
        with console.progress() as bars:
            tasks = {served.model: bars.add_task(served.model, total=len(prompts), note="") for served in found}
            for served in found:
                task = tasks[served.model]
                readings[served.model] = await read(
                    served,
                    prompts,
                    tokens[served.model],
                    max_tokens,
                    lambda label, task=task: bars.update(task, advance=1, note=label),
                )
    return readings


def _show(pairs: Sequence[Pair], prompts: int) -> None:
    from rich.markup import escape

    rows = [
        [
            escape(f"{pair.first} · {pair.second}"),
            f"{pair.identical:.0%} of {prompts}",
            "–" if pair.earliest is None else str(pair.earliest),
            f"{_number(pair.prompt_max)} / {_number(pair.prompt_mean)}",
            f"{_number(pair.made_max)} / {_number(pair.made_mean)}",
        ]
        for pair in pairs
    ]
    columns = [
        "models",
        "same text",
        "first to part at",
        "|Δ| of the prompts, max / mean",
        "|Δ| of the texts, max / mean",
    ]
    console.table("", columns, rows)
    parted = [
        [escape(f"{pair.first} · {pair.second}"), escape(row.label), str(row.divergence)]
        for pair in pairs
        for row in pair.prompts
        if row.divergence is not None
    ]
    if parted:
        console.table("Texts that part", ["models", "prompt", "at token"], parted)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
