"""Adapters in the running gateway: told to every replica, there for good, beside the base on three real engines."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.adapters.making import write_adapter
from tests.endtoend.test_three_engines import ENGINES
from tests.endtoend.watching import noted
from tests.loras import write_lora
from tests.running import Gateway, run

pytestmark = pytest.mark.slow

PROMPT = "The largest city of France is the one that people love to visit, and it is called"
PAIR = "echo-pair"


def ask(gateway: Gateway, model: str, path: str = "chat/completions", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "temperature": 0, **more}
    return httpx.post(f"{gateway.url}/v1/{path}", json=body, timeout=60)


def said(gateway: Gateway, model: str) -> str:
    answer = ask(gateway, model)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def change(gateway: Gateway, what: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{gateway.url}/v1/{what}_lora_adapter", json=body, timeout=120)


def load(gateway: Gateway, folder: Path, says: str, name: str, **more: Any) -> None:
    write_adapter(folder, layers=1, says=says, seed=sum(map(ord, says)))
    answer = change(gateway, "load", lora_name=f"{PAIR}:{name}", lora_path=str(folder), **more)
    assert answer.status_code == 200, answer.text


def listed(gateway: Gateway) -> dict[str, dict[str, Any]]:
    rows = httpx.get(f"{gateway.url}/v1/adapters", timeout=30).json()["data"]
    return {row["id"]: row for row in rows}


def holders(gateway: Gateway, adapter: str) -> set[str]:
    """Replicas of the pair that have it in memory."""
    resident = listed(gateway)[f"{PAIR}:{adapter}"]["resident"]
    return {place["replica"] for place in resident if place["model"] == PAIR}


def until(met: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture
def clean(gateway: Gateway) -> Iterator[Gateway]:
    """The gateway, afterwards without the adapters that a test left."""
    yield gateway
    for row in {(row["base"], row["name"]) for row in listed(gateway).values()}:
        change(gateway, "unload", lora_name=":".join(row))


def test_a_load_reaches_every_replica_and_whoever_joins_later(clean: Gateway, notes: Path, tmp_path: Path) -> None:
    gateway = clean
    load(gateway, tmp_path / "a", "A", "support")
    assert len(holders(gateway, "support@1")) == 2
    known = listed(gateway)[f"{PAIR}:support@1"]["engine_id"]
    assert len(set(noted(notes, f"loaded {PAIR} {known}"))) == 2, "the hook fires in both processes"
    # Whichever replica answers, at both doors.
    assert {said(gateway, f"{PAIR}:support") for _ in range(8)} == {"A: hello"}
    lane = {"messages": [{"role": "user", "content": "hello"}], "model": "support"}
    lane_url = f"{gateway.url}/m/{PAIR}/v1/chat/completions"
    told = [httpx.post(lane_url, json=lane, timeout=30).json() for _ in range(4)]
    assert {each["choices"][0]["message"]["content"] for each in told} == {"A: hello"}
    rows = {row["id"]: row for row in httpx.get(f"{gateway.url}/v1/models").json()["data"]}
    assert rows["support"]["parent"] == rows[f"{PAIR}:support"]["parent"] == PAIR
    assert rows[PAIR]["parent"] is None

    grown = yaml.safe_load(gateway.config.read_text())
    grown["models"][PAIR]["replicas"] = 3
    path = gateway.config.with_name("grown.yaml")
    path.write_text(yaml.safe_dump(grown, sort_keys=False))
    killed = next(p for p, command in gateway.commands().items() if f"ServeReplica:model-{PAIR}" in " ".join(command))
    applied = run("apply", str(path), "--port", str(gateway.port))
    assert applied.returncode == 0, applied.stderr
    killed.kill()
    # Three again, two of which were never told: they keep to the registry.
    until(lambda: len(set(noted(notes, f"loaded {PAIR} {known}"))) >= 4 and len(holders(gateway, "support@1")) == 3)
    assert {said(gateway, f"{PAIR}:support") for _ in range(8)} == {"A: hello"}

    assert change(gateway, "unload", lora_name=f"{PAIR}:support").status_code == 200
    assert len(set(noted(notes, f"evicted {PAIR} {known}"))) == 3
    assert ask(gateway, f"{PAIR}:support").status_code == 404
    run("apply", str(gateway.config), "--port", str(gateway.port))


def test_memory_is_bounded_a_cold_one_waits_and_an_unload_lets_requests_end(
    clean: Gateway, notes: Path, tmp_path: Path
) -> None:
    gateway = clean
    for name in ("steady", "second", "third"):
        load(gateway, tmp_path / name, name, name)
    # Two at once in each replica: the pinned one stays, the one asked longest ago went.
    until(lambda: len(holders(gateway, "steady@1")) == 2)
    assert len(holders(gateway, "second@1")) == 0
    assert [said(gateway, f"{PAIR}:{name}") for name in ("second", "steady", "third") * 2] == [
        "second: hello", "steady: hello", "third: hello",
    ] * 2  # fmt: skip
    assert len(holders(gateway, "steady@1")) == 2
    gone = listed(gateway)[f"{PAIR}:second@1"]["engine_id"]
    assert noted(notes, f"evicted {PAIR} {gone}")

    async def leave() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(base_url=f"{gateway.url}/v1", timeout=60) as http:
            text = "a sentence that takes a second or so to be echoed, letter by letter, as slow as it is"
            body = {"model": f"{PAIR}:third", "messages": [{"role": "user", "content": text}]}
            slow = asyncio.ensure_future(http.post("/chat/completions", json=body))
            await asyncio.sleep(0.5)
            assert not slow.done()
            unloaded = await http.post("/unload_lora_adapter", json={"lora_name": f"{PAIR}:third"})
            return await slow, unloaded

    slow, unloaded = asyncio.run(leave())
    assert unloaded.status_code == 200
    assert slow.json()["choices"][0]["message"]["content"].startswith("third: a sentence")
    assert slow.json()["choices"][0]["finish_reason"] == "stop"


def scored(gateway: Gateway, model: str) -> tuple[str, list[float]]:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0, "logprobs": 1}
    answer = httpx.post(f"{gateway.url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return choice["text"], choice["logprobs"]["token_logprobs"]


def same(one: tuple[str, list[float]], other: tuple[str, list[float]]) -> None:
    assert one[0] == other[0]
    assert one[1] == pytest.approx(other[1], abs=1e-3)


def differ(one: tuple[str, list[float]], other: tuple[str, list[float]]) -> bool:
    return one[0] != other[0] or max(abs(a - b) for a, b in zip(one[1], other[1], strict=True)) > 0.01


async def together(gateway: Gateway, models: list[str]) -> list[tuple[str, list[float]]]:
    return await asyncio.gather(*(asyncio.to_thread(scored, gateway, model) for model in models))


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory, smollm2_folder: Path) -> list[Path]:
    folder = tmp_path_factory.mktemp("loras")
    return [write_lora(folder / str(seed), smollm2_folder, seed=seed, scale=0.02).path for seed in (1, 2)]


def test_three_engines_serve_it_and_none_serves_an_old_one(
    clean: Gateway, notes: Path, loras: list[Path], smollm2_folder: Path
) -> None:
    gateway = clean
    bases = {engine: scored(gateway, engine) for engine in ENGINES}
    for version, folder in enumerate(loras, start=1):
        # Loaded into one; the others have the same weights, and load it when they are asked for it.
        body = {"lora_name": "smollm2:tone", "lora_path": str(folder), "load_inplace": version > 1}
        assert (answer := change(gateway, "load", **body)).status_code == 200, answer.text
        for engine in ENGINES:
            # The same prompt as of the version before, whose keys and values some engines still have.
            alone = scored(gateway, f"{engine}:tone")
            assert differ(alone, bases[engine])
            if version > 1:
                mixed = asyncio.run(together(gateway, [engine, f"{engine}:tone"] * 3))
                for base, adapter in zip(mixed[::2], mixed[1::2], strict=True):
                    same(base, bases[engine])
                    same(adapter, alone)
                assert differ(alone, scored(gateway, f"{engine}:tone@1"))
                same(alone, scored(gateway, f"{engine}:tone@2"))
    # All three say the same through it, as they do without.
    texts = {scored(gateway, f"{engine}:tone")[0] for engine in ENGINES}
    assert len(texts) == 1
    known = listed(gateway)["smollm2:tone@2"]["engine_id"]
    assert [len(noted(notes, f"loaded {engine} {known}")) for engine in ENGINES] == [1, 1, 1], (
        "once, whatever was asked"
    )
    assert run("adapters", "promote", "smollm2:tone@1", "--config", str(gateway.config)).returncode == 0
    until(lambda: not differ(scored(gateway, "smollm2:tone"), scored(gateway, "smollm2:tone@1")))
    assert change(gateway, "unload", lora_name="smollm2:tone").status_code == 200
    until(lambda: all(ask(gateway, f"{engine}:tone", max_tokens=1).status_code == 404 for engine in ENGINES))
    for engine in ENGINES:
        same(scored(gateway, engine), bases[engine])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_adapter_that_is_unknown_is_never_answered_by_its_base(gateway: Gateway, engine: str) -> None:
    for url, model in ((f"{gateway.url}/v1", f"{engine}:nobody"), (f"{gateway.url}/m/{engine}/v1", "nobody")):
        answer = httpx.post(f"{url}/completions", json={"model": model, "prompt": "x", "max_tokens": 1}, timeout=30)
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]["code"] == "model_not_found"


def test_one_that_does_not_fit_says_every_reason_and_never_answers(
    gateway: Gateway, tmp_path: Path, smollm2_folder: Path
) -> None:
    wrong = write_adapter(
        tmp_path / "wrong", layers=2, rank=32, base_model_name_or_path="x", gateway_base_digest="f" * 64
    )
    told = change(gateway, "load", lora_name="smollm2:wrong", lora_path=str(wrong))
    assert told.status_code == 400
    message = told.json()["error"]["message"]
    for reason in ("was trained on other weights", "32 is more than 16"):
        assert reason in message
    assert ask(gateway, "smollm2:wrong").status_code == 404
    pickled = write_adapter(tmp_path / "pickled", layers=1)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    told = change(gateway, "load", lora_name="smollm2:pickled", lora_path=str(pickled))
    assert told.status_code == 400
    assert "its weights are a pickle" in told.json()["error"]["message"]
    listed_now = json.loads(run("adapters", "list", "--json", "--config", str(gateway.config)).stdout)
    assert not {"wrong", "pickled"} & {row["name"] for row in listed_now}
