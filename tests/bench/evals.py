"""The harness beside a bare load generator: what one sample costs it, and whether the engine is what limits it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from tests.bench import load
from tests.bench.engines import AT_ONCE, model_config
from tests.bench.figures import Figure, Figures
from tests.bench.load import Address
from tests.bench.processes import running
from tests.running import free_port, serving

FEW, MANY = 500, 5500
TOKENS = 32
QUESTIONS = 48
COST_MS = 1.0
LIST_S = 1.0
SHARE = 0.9


def measure(figures: Figures) -> None:
    """Fill in the harness's figures. About three minutes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _list(figures)
        _cost(figures, folder)
        _share(figures, folder)


def _list(figures: Figures) -> None:
    """From the command to the list of suites."""
    took: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "gateway", "eval", "ls"], check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    figures.add(Figure("harness", "gateway eval ls", "s", median(took), how="ours", target=LIST_S))


def _cost(figures: Figures, folder: Path) -> None:
    """Processor time of the harness for one more sample, against an echo backend in another process: the difference
    between two sizes of a run, so that what starts and ends a run does not count."""
    port = free_port()
    with running("tests.bench.echo_alone", "--port", str(port)):
        spent = {
            count: _run(folder, f"http://127.0.0.1:{port}", "echo", _echoes(count), 64)[1] for count in (FEW, MANY)
        }
    each_ms = (spent[MANY] - spent[FEW]) / (MANY - FEW) * 1e3
    figures.add(Figure("harness", "processor time a sample, echo at 64", "ms", each_ms, how="ours", target=COST_MS))


def _share(figures: Figures, folder: Path) -> None:
    """Tokens a second of a real engine: asked by the harness and by the load generator, the same requests, in turns."""
    config, name = model_config("torch", folder)
    port = free_port()
    with serving(config, port, {"GATEWAY_API_KEYS": "bench-key"}):
        address = Address(port, f"/m/{name}/v1/chat/completions", "bench-key")
        bodies = [_body(name, number) for number in range(QUESTIONS)]
        load.run(load.at_once(address, [address.request(body) for body in bodies[:AT_ONCE]]))
        bare: list[float] = []
        ours: list[float] = []
        for _ in range(3):
            bare.append(load.run(_bare(address, bodies)))
            ours.append(_run(folder, f"http://127.0.0.1:{port}", name, _questions(), AT_ONCE, "bench-key")[0])
    figures.add(
        Figure("harness", f"tokens a second, torch, {AT_ONCE} at once", "tok/s", median(ours), median(bare),
               "bare load generator", target=SHARE, bound="least")
    )  # fmt: skip


def _text(number: int) -> str:
    return f"{number}: tell a long story about {number + 3} ships."


def _body(name: str, number: int) -> dict[str, Any]:
    return {
        "model": name,
        "messages": [{"role": "user", "content": _text(number)}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "stop": ["<|nowhere|>"],
        "seed": 1234,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def _bare(address: Address, bodies: list[dict[str, Any]]) -> float:
    """Every request once, so many at a time; tokens a second."""
    import asyncio

    queue = iter([address.request(body) for body in bodies])
    connections = [await load.Connection.open(address) for _ in range(AT_ONCE)]
    answers: list[load.Answer] = []

    async def work(connection: load.Connection) -> None:
        for request in queue:
            answers.append(await connection.ask(request))

    began = time.perf_counter()
    await asyncio.gather(*map(work, connections))
    took = time.perf_counter() - began
    for connection in connections:
        connection.close()
    counts = [re.search(rb'"completion_tokens":(\d+)', answer.body()) for answer in answers]
    return sum(int(count[1]) for count in counts if count) / took


def _echoes(count: int) -> dict[str, Any]:
    rows = [{"text": f"row {number}", "target": f"row {number}"} for number in range(count)]
    return {"rows": rows, "until": ["\n"]}


def _questions() -> dict[str, Any]:
    return {"rows": [{"text": _text(number), "target": ""} for number in range(QUESTIONS)], "until": ["<|nowhere|>"]}


def _run(folder: Path, url: str, model: str, asked: dict[str, Any], at_once: int, key: str = "") -> tuple[float, float]:
    """`gateway eval run` in a process of its own: tokens a second, and its processor time in seconds."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked["rows"]))
    task = {
        "task": "bench",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": "rows.jsonl"},
        "doc_to_text": "text",
        "doc_to_target": "target",
        "apply_chat_template": True,
        "generation_kwargs": {"until": asked["until"], "max_gen_toks": TOKENS},
    }
    (folder / "bench.yaml").write_text(json.dumps(task))
    command = [
        sys.executable,
        "-m",
        "gateway",
        "eval",
        "run",
        str(folder / "bench.yaml"),
        "-m",
        model,
        "--base-url",
        url,
    ]
    command += ["--output", str(folder / "out"), "--concurrency", str(at_once), "--no-cache", "--json"]
    if key:
        command += ["--api-key", key]
    before = _children()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"the evaluation failed: {done.stderr[-500:]}")
    told = json.loads(done.stdout)["models"][model]
    return told["tasks"]["bench"]["completion_tokens"] / told["seconds"], _children() - before


def _children() -> float:
    times = psutil.Process().cpu_times()
    return times.children_user + times.children_system
