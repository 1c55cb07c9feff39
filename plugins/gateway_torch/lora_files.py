"""Reads an adapter's folder by PEFT: which layers it changes, and by what. Knows no request and no thread."""

# PEFT's own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from gateway.errors import AdapterError

LowRank = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""By the name of a linear layer in the base: A `[rank, in]` and B `[rank, out]`, float32, the scaling in B. The layer's
answer to x `[…, in]` changes by `x Aᵀ B`."""

WEIGHTS = "adapter_model.safetensors"
_NAME = "read"


def read_lora(folder: Path, base_config: Any) -> LowRank:
    """The matrices of a PEFT folder for a model of this Transformers config. Blocks; loads no weights of the base.

    PEFT lays the adapter over a skeleton of the base without memory, so that whatever it understands of a config (rank
    and alpha patterns, rslora, regular expressions of targets, layers to transform) counts here as it does there.
    Raises AdapterError for what it refuses, and for what is no plain LoRA of linear layers.
    """
    from peft import PeftConfig, PeftModel
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    maker: Any = AutoModelForCausalLM
    try:
        tensors = load_file(folder / WEIGHTS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config: Any = PeftConfig.from_pretrained(str(folder), local_files_only=True)
            if config.peft_type != "LORA":
                raise AdapterError(f"{folder}: peft_type is {config.peft_type}; the torch engine serves LORA")
            config.inference_mode = True
            with torch.device("meta"):
                # A copy: Transformers writes what it is told into the config, which is the running model's.
                own = deepcopy(base_config)
                skeleton: Any = maker.from_config(own, dtype=torch.float32, attn_implementation="eager")
            laid: Any = PeftModel(skeleton, config, adapter_name=_NAME, low_cpu_mem_usage=True)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise AdapterError(f"{folder}: PEFT cannot load it: {' '.join(str(error).split())[:500]}") from error
    return _matrices(laid.base_model.model, tensors, folder)


def _matrices(laid: Any, tensors: dict[str, torch.Tensor], folder: Path) -> LowRank:
    from peft.tuners.lora import Linear, LoraLayer
    from peft.utils import AuxiliaryTrainingWrapper

    found: LowRank = {}
    left = dict(tensors)
    for name, module in laid.named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            raise AdapterError(f"{folder}: it replaces {name} (modules_to_save); the torch engine serves plain LoRA")
        if not isinstance(module, LoraLayer):
            continue
        layer: Any = module
        if not isinstance(module, Linear) or _NAME not in layer.lora_A:
            raise AdapterError(f"{folder}: {name} is no linear layer; the torch engine serves LoRA of those")
        if layer.lora_variant.get(_NAME) is not None or layer.lora_B[_NAME].bias is not None:
            raise AdapterError(
                f"{folder}: {name} has more than LoRA (DoRA, a bias), which the torch engine serves none of"
            )
        pair: list[torch.Tensor] = []
        for half, expected in (("lora_A", layer.lora_A[_NAME]), ("lora_B", layer.lora_B[_NAME])):
            tensor = left.pop(f"base_model.model.{name}.{half}.weight", None)
            if tensor is None or tensor.shape != expected.weight.shape:
                what = "holds none" if tensor is None else f"has {list(tensor.shape)}"
                raise AdapterError(f"{folder}: {WEIGHTS} {what} for {name}.{half} {list(expected.weight.shape)}")
            pair.append(tensor.float())
        found[name] = (pair[0], pair[1].T * layer.scaling[_NAME])
    if left:
        raise AdapterError(f"{folder}: its base and config have no place for {', '.join(sorted(left)[:5])}")
    if not found:
        raise AdapterError(f"{folder}: it changes no layer of its base")
    return found
