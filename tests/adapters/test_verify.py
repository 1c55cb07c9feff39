"""Verification against the real base: what fits passes, and every way not to fit is told, all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.adapters.verify import Base, verify
from gateway.errors import AdapterError
from tests.adapters.making import lora_tensors, write_adapter


@pytest.fixture
def base(smollm2_folder: Path) -> Base:
    return Base("smollm2", "b" * 64, smollm2_folder, max_rank=16)


def refused(folder: Path, base: Base) -> str:
    with pytest.raises(AdapterError) as caught:
        verify(folder, base)
    return caught.value.message


def test_one_that_fits(base: Base, tmp_path: Path) -> None:
    assert verify(write_adapter(tmp_path / "a"), base) == 8
    assert verify(write_adapter(tmp_path / "b", gateway_base_digest="b" * 64, rank=16, layers=2), base) == 16
    assert verify(write_adapter(tmp_path / "c", target_modules=r".*\.(q|v|o|down)_proj"), base) == 8
    assert verify(write_adapter(tmp_path / "d", target_modules="all-linear"), base) == 8


@pytest.mark.slow
def test_peft_itself_writes_what_passes(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=2))
    model.save_pretrained(tmp_path / "base")
    base = Base("tiny", "b" * 64, tmp_path / "base", max_rank=16)
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "gate_proj"], task_type="CAUSAL_LM", rank_pattern={"q_proj": 8}
    )
    tuned = peft.get_peft_model(model, config)
    tuned.save_pretrained(tmp_path / "untrained")
    assert "it changes nothing" in refused(tmp_path / "untrained", base)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.01)
    tuned.save_pretrained(tmp_path / "trained")
    assert verify(tmp_path / "trained", base) == 8


def test_every_problem_is_listed_at_once(base: Base, tmp_path: Path) -> None:
    tensors = lora_tensors()
    wrong = {name.replace("q_proj", "query"): value for name, value in tensors.items() if "down_proj" not in name}
    wrong["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"] = np.ones((8, 999), np.float32)
    wrong["base_model.model.score.weight"] = np.ones((2, 2), np.float32)
    folder = write_adapter(
        tmp_path / "a", tensors=wrong, gateway_base_digest="c" * 64, bias="all", target_modules=["q_proj", "nowhere"]
    )
    told = refused(folder, base)
    for line in (
        "does not fit smollm2",
        "bias = 'all'",
        "was trained on other weights",
        "self_attn.query is no linear layer of smollm2 (30 tensors)",
        "model.layers.*.mlp.down_proj.lora_A.weight is [8, 999], smollm2 needs [8, 1536]",
        "model.layers.*.mlp.down_proj.lora_B.weight is missing",
        "model.layers.*.self_attn.v_proj is not among the config's target_modules (30 tensors)",
        "base_model.model.score.weight is no LoRA matrix",
        "names 'nowhere', which smollm2 does not have",
        "names 'q_proj', of which adapter_model.safetensors holds nothing",
    ):
        assert line in told, line


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank": 32}, "32 is more than 16, the room of smollm2 (adapters.max_rank)"),
        ({"r": 4}, "is [8, 576], smollm2 needs [4, 576]"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA is served"),
        ({"use_dora": True}, "use_dora = True is not served"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": "eight"}, "r: Input should be a valid integer"),
        ({"target_modules": "(["}, "is no regular expression"),
        ({"strength": 0.0}, "it changes nothing"),
        ({"strength": float("inf")}, "not finite"),
    ],
)
def test_one_problem_at_a_time(base: Base, tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    assert told in refused(write_adapter(tmp_path / "a", **changes), base)


def test_types_that_no_engine_computes_with(base: Base, tmp_path: Path) -> None:
    whole = {name: value.astype(np.int8) for name, value in lora_tensors(layers=1).items()}
    assert "is of type I8" in refused(write_adapter(tmp_path / "a", tensors=whole), base)
    half = {name: value.astype(np.float16) for name, value in lora_tensors(layers=1).items()}
    assert verify(write_adapter(tmp_path / "b", tensors=half), base) == 8


def test_files_that_are_damaged(base: Base, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "adapter_model.safetensors is damaged" in refused(folder, base)
    (folder / "adapter_config.json").write_text("{")
    assert "adapter_config.json is not understood" in refused(folder, base)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert "r: Field required" in refused(folder, base)


def test_a_base_without_weights(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", layers=1)
    assert "has no weights" in refused(folder, Base("echo", "", None))
    assert "holds no safetensors" in refused(folder, Base("empty", "", tmp_path))
