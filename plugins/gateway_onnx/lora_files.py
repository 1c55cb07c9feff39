"""Reads an adapter's folder (PEFT's layout) by numpy alone: which layers it changes, and by what."""

# safetensors' own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import AdapterError

Matrix = NDArray[np.float32]
LowRank = dict[str, tuple[Matrix, Matrix]]
"""By the name of a linear layer in the base: A `[rank, in]` and B `[rank, out]`, the scaling in B. Its answer to x
`[…, in]` changes by `x Aᵀ B`."""

WEIGHTS = "adapter_model.safetensors"
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_KINDS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_MORE = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
)


def read_lora(folder: Path) -> LowRank:
    """The matrices of a PEFT folder. Raises AdapterError for what cannot be read and for what is no plain LoRA."""
    from safetensors import SafetensorError, deserialize

    try:
        config: Any = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = dict(deserialize((folder / WEIGHTS).read_bytes()))
        if config["peft_type"] != "LORA":
            raise AdapterError(f"{folder}: peft_type is {config['peft_type']}; the onnx engine serves LORA")
        if more := [name for name in _MORE if config.get(name)]:
            raise AdapterError(f"{folder}: the onnx engine serves plain LoRA, without {', '.join(more)}")
        halves: dict[str, dict[str, Matrix]] = {}
        for name, tensor in tensors.items():
            match = _TENSOR.fullmatch(name)
            if match is None:
                raise AdapterError(f"{folder}: {name} is no LoRA matrix of a linear layer")
            halves.setdefault(match[1], {})[match[2]] = _values(tensor)
        found: LowRank = {}
        for name, pair in halves.items():
            if len(pair) != 2 or pair["A"].ndim != 2 or pair["B"].ndim != 2 or pair["A"].shape[0] != pair["B"].shape[1]:
                raise AdapterError(f"{folder}: the matrices of {name} do not fit each other")
            scaling = _scaling(config, name, pair["A"].shape[0])
            found[name] = (pair["A"], np.ascontiguousarray(pair["B"].T) * np.float32(scaling))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, re.error) as error:
        raise AdapterError(f"{folder}: cannot be read as a LoRA: {type(error).__name__}: {error}") from error
    if not found:
        raise AdapterError(f"{folder}: it changes no layer of its base")
    return found


def _scaling(config: Any, module: str, rank: int) -> float:
    """As PEFT has it: alpha of the first pattern that fits the layer's name, else of all."""
    alpha: float = config["lora_alpha"]
    for pattern, other in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = other
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _values(tensor: Any) -> Matrix:
    if tensor["dtype"] == "BF16":
        # The upper halves of float32 numbers.
        wide = np.frombuffer(tensor["data"], np.uint16).astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32).reshape(tensor["shape"])
    return np.frombuffer(tensor["data"], _KINDS[tensor["dtype"]]).astype(np.float32).reshape(tensor["shape"])
