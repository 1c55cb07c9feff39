"""Adapters that must never answer, brought over HTTP and by the command line: refused with the reason, nothing kept."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from gateway.adapter_commands import adapters
from gateway.errors import GatewayError
from tests.adapters.house import House
from tests.adapters.making import SHAPES, lora_tensors, write_adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DOWN = "base_model.model.model.layers.0.mlp.down_proj"


def renamed(folder: Path) -> str:
    wrong = {name.replace("q_proj", "query"): value for name, value in lora_tensors(layers=2).items()}
    return str(write_adapter(folder, tensors=wrong, target_modules=["query", "v_proj", "o_proj", "down_proj"]))


def misshapen(folder: Path) -> str:
    wrong = {**lora_tensors(layers=1), f"{DOWN}.lora_A.weight": np.ones((8, 999), np.float32)}
    del wrong[f"{DOWN}.lora_B.weight"]
    return str(write_adapter(folder, tensors=wrong))


def pickled(folder: Path) -> str:
    write_adapter(folder, layers=1)
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({}))
    return str(folder)


def damaged(folder: Path) -> str:
    write_adapter(folder, layers=1)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    return str(folder)


def lying(folder: Path) -> str:
    """Its config says another rank than its matrices have."""
    write_adapter(folder, layers=1, tensors=lora_tensors(rank=4, layers=1), rank=8)
    return str(folder)


def made(**changes: Any) -> Callable[[Path], str]:
    return lambda folder: str(write_adapter(folder, layers=1, **changes))


CASES: dict[str, tuple[Callable[[Path], str], tuple[str, ...]]] = {
    "another base's digest": (made(gateway_base_digest="f" * 64), ("was trained on other weights", "f" * 64)),
    "a rank beyond the room": (made(rank=32), ("32 is more than 16",)),
    "a rank that is not its matrices'": (lying, ("lora_A.weight is [4, 576]", "needs [8, 576]")),
    "names that the base has not": (renamed, ("self_attn.query is no linear layer", "names 'query'")),
    "shapes that the base has not": (misshapen, ("is [8, 999]", "needs [8, 1536]", "lora_B.weight is missing")),
    "more than LoRA": (made(use_dora=True, modules_to_save=["lm_head"]), ("use_dora", "modules_to_save")),
    "no LoRA": (made(peft_type="IA3"), ("only LORA is served",)),
    "a change of nothing": (made(strength=0.0), ("it changes nothing",)),
    "numbers that are none": (made(strength=float("nan")), ("not finite",)),
    "a pickle": (pickled, ("are a pickle", "as safetensors")),
    "a damaged file": (damaged, ("is damaged",)),
    "a folder that is not there": (lambda folder: str(folder), ("there is no such folder",)),
    "a way out of a package": (lambda _: "package:pydantic/../../secrets", ("leads out of the package",)),
    "a folder of something else": (lambda folder: str(folder.parent.parent), (f"it has no {CONFIG} and {WEIGHTS}",)),
}  # fmt: skip


async def test_over_http(house: Any, tmp_path: Path) -> None:
    gateway: House = house()
    for number, (case, (make, told)) in enumerate(CASES.items()):
        body = {"lora_name": "echo:support", "lora_path": make(tmp_path / f"{number}" / "it")}
        answer = await gateway.wide.post("/v1/load_lora_adapter", body)
        assert (answer.status, answer.json()["error"]["code"]) == (400, "adapter_error"), (case, answer.body)
        for part in told:
            assert part in answer.json()["error"]["message"], case
    asked = {"model": "echo:support", "messages": [{"role": "user", "content": "hello"}]}
    assert (await gateway.wide.post("/v1/chat/completions", asked)).status == 404
    assert (await gateway.wide.get("/v1/adapters")).json()["data"] == []
    assert gateway.residence("echo").resident() == []


def test_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    # Two layers in the real shapes: a folder's digest is of all its bytes.
    shapes = {f"model.layers.{n}.{module}.weight": shape for n in range(2) for module, shape in SHAPES.items()}
    save_file({name: np.zeros(shape, np.float16) for name, shape in shapes.items()}, base / "model.safetensors")
    monkeypatch.setenv("GATEWAY_CACHE", str(tmp_path / "cache"))
    config = tmp_path / "config.yaml"
    models = {"smollm2": {"backend": "echo", "source": str(base), "adapters": {}}}
    server = {"store": f"sqlite:///{tmp_path / 'gateway.db'}"}
    config.write_text(json.dumps({"server": server, "models": models}))
    arguments = ["--base", "smollm2", "--name", "support", "--config", str(config)]
    for number, (case, (make, told)) in enumerate(CASES.items()):
        done = CliRunner().invoke(adapters, ["add", make(tmp_path / f"{number}" / "it"), *arguments])
        # `gateway` prints such an error as one line and ends with 1.
        assert isinstance(done.exception, GatewayError), (case, done.output)
        for part in told:
            assert part in done.exception.message, case
    listed = CliRunner().invoke(adapters, ["list", "--json", "--config", str(config)])
    assert json.loads(listed.stdout) == []
