"""The shipped example whole: two cores train an adapter, and it is proved better than its base on all three engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.endtoend.test_three_engines import ENGINES
from tests.running import Gateway, free_port, run, serving

pytestmark = [pytest.mark.slow, pytest.mark.proof]

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "evals" / "suites" / "intents"


@dataclass(frozen=True)
class Trained:
    """A gateway, and what the training of its adapter `support` measured."""

    gateway: Gateway
    measured: dict[str, Any]
    output: Path

    def prove(self, engine: str) -> dict[str, Any]:
        done = run(
            "adapters", "prove", "support", "--suite", "intents", "--against", engine, "--json",
            "--config", str(self.gateway.config), "--base-url", self.gateway.url, "--output", str(self.output),
            timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("intents")
    config = yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text())
    config["server"] |= {"port": free_port(), "store": f"sqlite:///{folder / 'gateway.db'}"}
    config["apps"] = {}
    for model in ENGINES:
        config["models"][model]["adapters"] = {"max_resident": 2, "max_rank": 8}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    done = run(
        "adapters", "train", "--base", "smollm2", "--config", str(path), "--out", "support", "--json",
        "--data", str(ROWS / "train.jsonl"), "--validation", str(ROWS / "validation.jsonl"),
        "--last-layers", "15", "--lr", "0.003", "--max-steps", "40",
        env={"OMP_NUM_THREADS": "2"}, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with serving(path, config["server"]["port"], within_s=600) as running:
        yield Trained(running, json.loads(done.stdout), folder / "results")


def test_two_cores_train_it_within_five_minutes(trained: Trained) -> None:
    assert trained.measured["seconds"] < 300
    assert trained.measured["validation_loss"] < 0.2 * trained.measured["validation_loss_before"]


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_better_by_forty_points_and_surely(trained: Trained, engine: str) -> None:
    proof = trained.prove(engine)
    (row,) = proof["rows"]
    print(f"{engine}: {row}")
    assert row["samples"] == 80
    assert row["difference"] >= 0.4, row
    assert row["test"] == "mcnemar"
    assert row["p_value"] < 0.001, row
    assert proof["verdict"] == "better"


def test_promoted_it_answers_at_both_doors(trained: Trained) -> None:
    gateway = trained.gateway
    done = run("adapters", "promote", "support@1", "--config", str(gateway.config))
    assert done.returncode == 0, done.stderr
    row = json.loads((ROWS / "train.jsonl").read_text().splitlines()[0])
    question, answer = row["messages"]
    body = {"messages": [question], "max_tokens": 16, "temperature": 0}
    for engine in ENGINES:
        for url in (f"{gateway.url}/v1", f"{gateway.url}/m/{engine}/v1"):
            asked = {**body, "model": f"{engine}:support"}
            told = httpx.post(f"{url}/chat/completions", json=asked, timeout=120).json()
            assert told["choices"][0]["message"]["content"] == answer["content"]
