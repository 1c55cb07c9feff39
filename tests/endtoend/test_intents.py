"""The shipped example: two cores train an adapter that is proved better than its base, on all three engines; small on
one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.endtoend.test_three_engines import ENGINES
from tests.running import Gateway, run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "evals" / "suites" / "intents"


@dataclass(frozen=True)
class Trained:
    """A gateway, an adapter that was trained beside it, and what its training measured."""

    gateway: Gateway
    name: str
    measured: dict[str, Any]
    output: Path

    def prove(self, engine: str) -> dict[str, Any]:
        done = run(
            "adapters", "prove", self.name, "--suite", "intents", "--against", engine, "--json",
            "--config", str(self.gateway.config), "--base-url", self.gateway.url, "--output", str(self.output),
            timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        proof: dict[str, Any] = json.loads(done.stdout)
        (row,) = proof["rows"]
        print(f"{engine}: {row}")
        assert row["difference"] >= 0.4, row
        assert row["test"] == "mcnemar"
        assert row["p_value"] < 0.001, row
        assert proof["verdict"] == "better"
        return row

    def remove(self) -> None:
        body = {"lora_name": f"smollm2:{self.name}"}
        httpx.post(f"{self.gateway.url}/v1/unload_lora_adapter", json=body, timeout=60)


def train(
    gateway: Gateway, folder: Path, name: str, steps: int, every: int, validation: Path = ROWS / "validation.jsonl"
) -> Trained:
    done = run(
        "adapters", "train", "--base", "smollm2", "--config", str(gateway.config), "--out", name, "--json",
        "--data", str(ROWS / "train.jsonl"), "--validation", str(validation), "--last-layers", "15",
        "--lr", "0.003", "--max-steps", str(steps), "--evaluate-every", str(every), "--folder", str(folder / name),
        env={"OMP_NUM_THREADS": "2"}, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(done.stdout)
    print(f"{name}: {measured}")
    return Trained(gateway, name, measured, folder / "results")


def test_a_few_steps_teach_it(gateway: Gateway, tmp_path: Path) -> None:
    """The same way in little: too little to prove more than that it learns, and answers."""
    rows = (ROWS / "validation.jsonl").read_text().splitlines(keepends=True)[:12]
    (tmp_path / "validation.jsonl").write_text("".join(rows))
    trained = train(gateway, tmp_path, "few", 5, 5, tmp_path / "validation.jsonl")
    try:
        assert trained.measured["validation_loss"] < 0.5 * trained.measured["validation_loss_before"]
        row = json.loads(rows[0])
        asked = {"model": "smollm2-onnx:few", "messages": row["messages"][:1], "max_tokens": 16, "temperature": 0}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=asked, timeout=120).json()
        # What it says may be wrong yet; its form is learned first.
        assert set(json.loads(answer["choices"][0]["message"]["content"])) == {"intent"}
    finally:
        trained.remove()


@pytest.fixture(scope="module")
def trained(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    trained = train(gateway, tmp_path_factory.mktemp("intents"), "example", 40, 10)
    yield trained
    trained.remove()


@pytest.mark.proof
def test_two_cores_train_it_within_five_minutes(trained: Trained) -> None:
    assert trained.measured["seconds"] < 300
    assert trained.measured["validation_loss"] < 0.2 * trained.measured["validation_loss_before"]


@pytest.mark.proof
@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_better_by_forty_points_and_surely(trained: Trained, engine: str) -> None:
    assert trained.prove(engine)["samples"] == 80


@pytest.mark.proof
def test_promoted_it_answers_at_both_doors(trained: Trained) -> None:
    gateway = trained.gateway
    done = run("adapters", "promote", "smollm2:example@1", "--config", str(gateway.config))
    assert done.returncode == 0, done.stderr
    row = json.loads((ROWS / "train.jsonl").read_text().splitlines()[0])
    question, answer = row["messages"]
    body = {"messages": [question], "max_tokens": 16, "temperature": 0}
    for engine in ENGINES:
        for url in (f"{gateway.url}/v1", f"{gateway.url}/m/{engine}/v1"):
            asked = {**body, "model": f"{engine}:example"}
            told = httpx.post(f"{url}/chat/completions", json=asked, timeout=120).json()
            assert told["choices"][0]["message"]["content"] == answer["content"]
