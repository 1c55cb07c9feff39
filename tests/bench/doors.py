"""Both doors with the echo backend against bare Ray Serve applications that send the same bytes. Measured in turns."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

import psutil
import yaml

from tests.bench import load
from tests.bench.figures import Figure, Figures
from tests.bench.load import Address
from tests.bench.processes import named, pss_mb, running
from tests.running import free_port, serving

TOKENS = 64
MESSAGE = ("The quick brown fox jumps over the lazy dog. " * 7)[:300]
PROMPT = ("Sixty-four bytes are echoed as sixty-four events of a stream. " * 2)[:TOKENS]
UNARY = {"model": "echo", "messages": [{"role": "user", "content": MESSAGE}], "max_tokens": 512}
STREAM = {
    "model": "echo",
    "messages": [{"role": "user", "content": PROMPT}],
    "max_tokens": TOKENS,
    "stream": True,
}
PAIRS = (("wide", "two-hop"), ("lane", "one-hop"))
AT_ONCE = 16

Rounds = dict[str, dict[str, list[float]]]


def measure(figures: Figures, *, rounds: int, seconds: float) -> None:
    """Fill in the doors' figures, and the memory of their replicas."""
    key = secrets.token_hex(16)
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "echo.yaml"
        config.write_text(yaml.safe_dump({"models": {"echo": {"backend": "echo"}}}))
        with serving(config, port, {"GATEWAY_API_KEYS": key}) as gateway:
            wide = Address(port, "/v1/chat/completions", key)
            lane = Address(port, "/m/echo/v1/chat/completions", key)
            unary, stream = load.run(_answers(lane))
            (folder / "unary.json").write_bytes(unary)
            (folder / "stream.json").write_text(json.dumps([event.decode() for event in stream]))
            bare = free_port()
            files = ("--unary", str(folder / "unary.json"), "--stream", str(folder / "stream.json"))
            with running("tests.bench.bare", "--port", str(bare), *files) as peer:
                addresses = {
                    "wide": wide,
                    "two-hop": Address(bare, "/two-hop/"),
                    "lane": lane,
                    "one-hop": Address(bare, "/one-hop/"),
                }
                found: Rounds = load.run(_rounds(addresses, rounds, seconds))
                _add_speed(figures, found)
                _add_memory(figures, gateway.descendants(), peer.children(recursive=True))


async def _answers(address: Address) -> tuple[bytes, list[bytes]]:
    """The echo backend's own bytes: a whole answer, and a stream's 64 events with its end mark."""
    unary = await load.one(address, address.request(UNARY))
    stream = await load.one(address, address.request(STREAM))
    events = stream.events()
    if len(events) != TOKENS:
        raise RuntimeError(f"the echo backend sent {len(events)} events, not {TOKENS}")
    return unary.body(), [*events[:-1], events[-1] + b"data: [DONE]\n\n"]


async def _rounds(addresses: dict[str, Address], rounds: int, seconds: float) -> Rounds:
    found: Rounds = {name: defaultdict(list) for name in addresses}
    for address in addresses.values():
        # Also proof that both sides send the same: as many events, through every address.
        answer = await load.one(address, address.request(STREAM))
        if len(answer.events()) != TOKENS:
            raise RuntimeError(f"{address.path} sent {len(answer.events())} events, not {TOKENS}")
        await load.together(address, [address.request(UNARY)] * 4, seconds=1.0)
        await load.together(address, [address.request(STREAM)] * 4, seconds=0.5)
    for number in range(rounds):
        for pair in PAIRS:
            # Who goes first changes from round to round.
            for name in pair if number % 2 == 0 else reversed(pair):
                await _once(addresses[name], seconds, found[name])
    return found


async def _once(address: Address, seconds: float, into: dict[str, list[float]]) -> None:
    unary, stream = address.request(UNARY), address.request(STREAM)
    into["unary"].append(median([answer.whole_s for answer in await load.in_turn(address, unary, 100)]) * 1e3)
    into["rate"].append(await load.together(address, [unary] * AT_ONCE, seconds=seconds))
    into["stream"].append(median([answer.whole_s for answer in await load.in_turn(address, stream, 40)]) * 1e3)
    into["chunks"].append(TOKENS * await load.together(address, [stream] * AT_ONCE, seconds=seconds))


def _add_speed(figures: Figures, found: Rounds) -> None:
    targets = {
        "wide": {"unary": 1.2, "rate": 0.85, "stream": 0.4, "chunks": 3.0},
        "lane": {"unary": 1.4, "rate": 0.7, "stream": None, "chunks": 0.8},
    }
    titles = {
        "unary": ("unary p50, one at a time", "ms"),
        "rate": (f"unary, {AT_ONCE} at once", "req/s"),
        "stream": (f"stream of {TOKENS}, whole time", "ms"),
        "chunks": (f"streams, {AT_ONCE} at once", "chunks/s"),
    }
    group = {"wide": "wide door", "lane": "fast lane"}
    for ours, peer in PAIRS:
        for name, (title, unit) in titles.items():
            figures.add(
                Figure(
                    group[ours], title, unit, median(found[ours][name]), median(found[peer][name]), f"bare {peer}",
                    target=targets[ours][name], bound="most" if unit == "ms" else "least",
                )
            )  # fmt: skip


def _add_memory(figures: Figures, ours: list[psutil.Process], bare: list[psutil.Process]) -> None:
    """After the load, so with everything that it made them import."""
    ingress = _one_of(ours, "ServeReplica:gateway:Gateway")
    replica = _one_of(bare, "ServeReplica:one-hop:OneHop")
    figures.add(
        Figure("memory", "ingress replica above a bare replica", "MB", pss_mb(ingress), pss_mb(replica), "bare replica",
               "difference", 100.0)
    )  # fmt: skip


def _one_of(processes: list[psutil.Process], name: str) -> psutil.Process:
    found = named(processes, name)
    if len(found) != 1:
        lines = [" ".join(process.cmdline())[:80] for process in processes]
        raise RuntimeError(f"{len(found)} processes are called {name}; there are {lines}")
    return found[0]
