"""Real adapters of SmolLM2-135M, written by hand: small, quick, and each with an effect of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

HIDDEN, LAYERS, KV, INTERMEDIATE = 576, 30, 192, 1536
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
"""[out, in] of the layers that are adapted."""


def lora_tensors(rank: int = 8, seed: int = 0, strength: float = 0.02, layers: int = LAYERS) -> dict[str, Any]:
    """Random matrices in PEFT's layout: A as PEFT begins, B as if trained."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    for layer in range(layers):
        for module, (out, inside) in SHAPES.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = rng.normal(0, inside**-0.5, (rank, inside)).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = rng.normal(0, strength, (out, rank)).astype(np.float32)
    return tensors


def lora_config(rank: int = 8, **changes: Any) -> dict[str, Any]:
    """What PEFT writes beside them."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "target_modules": [module.rpartition(".")[2] for module in SHAPES],
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "inference_mode": True,
        "peft_version": "0.18.0",
        **changes,
    }


def write_adapter(
    folder: Path, *, rank: int = 8, seed: int = 0, strength: float = 0.02, layers: int = LAYERS,
    tensors: dict[str, Any] | None = None, **changes: Any,
) -> Path:  # fmt: skip
    """An adapter's folder. `changes`: fields of its config."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors or lora_tensors(rank, seed, strength, layers), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(lora_config(rank, **changes)))
    return folder
