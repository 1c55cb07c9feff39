"""Adapters for tests: small, real, random, and strong enough to change what the model says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gateway.types import AdapterFiles

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


def write_lora(
    folder: Path,
    base: Path,
    *,
    id: str = "lora",
    seed: int = 0,
    rank: int = 4,
    modules: Sequence[str] = (*ATTENTION, *MLP),
    scale: float = 0.05,
    **settings: Any,
) -> AdapterFiles:
    """A LoRA in PEFT's layout for a Llama-like model; `settings` go into its adapter_config.json as they are."""
    from safetensors.numpy import save_file

    shape = json.loads((base / "config.json").read_text())
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    heads, keys = shape["num_attention_heads"], shape["num_key_value_heads"]
    size = shape.get("head_dim") or hidden // heads
    sizes = dict.fromkeys(modules, (hidden, hidden))
    sizes |= {"q_proj": (hidden, heads * size), "k_proj": (hidden, keys * size), "v_proj": (hidden, keys * size)}
    sizes |= {"o_proj": (heads * size, hidden)}
    sizes |= {"gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden)}
    random = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for layer in range(shape["num_hidden_layers"]):
        for module in modules:
            block = "self_attn" if module in ATTENTION else "mlp"
            name = f"base_model.model.model.layers.{layer}.{block}.{module}"
            width, height = sizes[module]
            tensors[f"{name}.lora_A.weight"] = random.normal(0, width**-0.5, (rank, width)).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = random.normal(0, scale, (height, rank)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0}
    config |= {"target_modules": list(modules), "bias": "none", "base_model_name_or_path": base.name}
    (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    both = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    return AdapterFiles(id, folder, hashlib.sha256(both).hexdigest(), rank)


def two_loras(folder: Path, base: Path) -> Sequence[AdapterFiles]:
    """For the contract of adapters: two of `smollm2` that differ in rank and in what they change."""
    first = write_lora(folder / "one", base, id="smollm2:one", seed=1, rank=8, scale=0.02)
    modules = ("q_proj", "v_proj", "down_proj")
    return first, write_lora(folder / "two", base, id="smollm2:two", seed=2, modules=modules, scale=0.05)
