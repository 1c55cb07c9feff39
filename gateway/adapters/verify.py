"""Whether an adapter fits its base, found out before anything loads it: from its config and both headers, by numpy.

PEFT's layout: `base_model.model.<module>.lora_A.weight` [rank, in] and `…lora_B.weight` [out, rank] beside a base's
`<module>.weight` [out, in].
"""

# safetensors' own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, deserialize

from gateway.adapters.sources import CONFIG, WEIGHTS
from gateway.errors import AdapterError

_PREFIX = "base_model.model."
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
_FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_MOST_LINES = 20


@dataclass(frozen=True, slots=True)
class Base:
    """The model that an adapter is held against."""

    name: str
    digest: str
    path: Path | None
    """Its folder in Hugging Face's layout; None for a model without weights."""
    max_rank: int | None = None
    """The largest rank that it has room for; None: not known, any."""


class _Config(BaseModel):
    """What counts of `adapter_config.json`; PEFT adds other fields with every version."""

    model_config = ConfigDict(extra="ignore", strict=True)

    peft_type: str
    r: int = Field(ge=1, le=4096)
    lora_alpha: float | int
    target_modules: list[str] | str
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float | int] | None = None
    bias: str | None = "none"
    use_dora: bool | None = False
    use_rslora: bool | None = False
    lora_bias: bool | None = False
    fan_in_fan_out: bool | None = False
    modules_to_save: list[str] | None = None
    layer_replication: list[Any] | None = None
    target_parameters: list[str] | None = None
    trainable_token_indices: list[Any] | dict[str, Any] | None = None
    task_type: str | None = None
    gateway_base_digest: str | None = None
    """What our own training writes: the digest of the weights that it was trained on."""

    def rank_of(self, module: str) -> int:
        """As PEFT finds it: a key of `rank_pattern` is a regular expression of the module's last names."""
        for pattern, rank in (self.rank_pattern or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return rank
        return self.r

    def targets(self, module: str) -> bool:
        wanted = self.target_modules
        if isinstance(wanted, str):
            return wanted == "all-linear" or re.fullmatch(wanted, module) is not None
        return any(module == name or module.endswith(f".{name}") for name in wanted)


def verify(folder: Path, base: Base) -> int:
    """Hold an adapter against its base. Returns its largest rank. Blocks; reads the whole adapter, and headers of the
    base.

    Raises AdapterError that lists every problem, one a line.
    """
    config = _read_config(folder / CONFIG)
    problems = list(_unsupported(config))
    if base.path is None:
        raise AdapterError(f"{base.name} has no weights that an adapter could be held against")
    if config.gateway_base_digest not in (None, "", base.digest):
        problems.append(
            f"was trained on other weights: their digest is {config.gateway_base_digest}, {base.name} has {base.digest}"
        )
    shapes = base_shapes(base.path)
    tensors = _read_tensors(folder / WEIGHTS)
    problems += _misfits(config, {name: tensor["shape"] for name, tensor in tensors.items()}, shapes, base)
    problems += _values(tensors)
    if problems:
        lines = problems[:_MOST_LINES]
        lines += [f"… and {len(problems) - _MOST_LINES} more problems"] if len(problems) > _MOST_LINES else []
        raise AdapterError(f"does not fit {base.name}:\n" + "\n".join(f"- {line}" for line in lines))
    return max(config.rank_of(module) for module in _modules(tensors))


def base_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Every tensor of a model's folder and its shape. Raises AdapterError where there is none."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(str(file), framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                shapes[name] = tuple(opened.get_slice(name).get_shape())
    if not shapes:
        raise AdapterError(f"{path} holds no safetensors that an adapter could be held against")
    return shapes


def _read_config(path: Path) -> _Config:
    try:
        config = _Config.model_validate_json(path.read_bytes())
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
        raise AdapterError(f"{CONFIG} is not understood: {'; '.join(lines)}") from error
    if config.peft_type != "LORA":
        raise AdapterError(f"{CONFIG}: peft_type is {config.peft_type[:40]!r}; only LORA is served")
    try:
        if isinstance(config.target_modules, str):
            re.compile(config.target_modules)
        for pattern in config.rank_pattern or ():
            re.compile(pattern)
    except re.error as error:
        raise AdapterError(f"{CONFIG}: {error.pattern!r} is no regular expression: {error}") from error
    return config


def _unsupported(config: _Config) -> Iterator[str]:
    checks = {
        "bias": config.bias not in (None, "none"),
        "use_dora": bool(config.use_dora),
        "lora_bias": bool(config.lora_bias),
        "fan_in_fan_out": bool(config.fan_in_fan_out),
        "modules_to_save": bool(config.modules_to_save),
        "layer_replication": bool(config.layer_replication),
        "target_parameters": bool(config.target_parameters),
        "trainable_token_indices": bool(config.trainable_token_indices),
        "task_type": config.task_type not in (None, "CAUSAL_LM"),
    }
    for name, present in checks.items():
        if present:
            yield f"{CONFIG}: {name} = {getattr(config, name)!r} is not served by every engine: train without it"


def _read_tensors(path: Path) -> dict[str, Any]:
    """Name → `{"shape", "dtype", "data"}`. Nothing in the format can run."""
    try:
        return dict(deserialize(path.read_bytes()))
    except SafetensorError as error:
        raise AdapterError(f"{WEIGHTS} is damaged or no safetensors file: {error}") from error


def _modules(names: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(match["module"] for name in names if (match := _TENSOR.fullmatch(name))))


def _misfits(config: _Config, found: Mapping[str, Any], base: Mapping[str, tuple[int, ...]], model: Base) -> list[str]:
    """Names and shapes that are not the base's. What is wrong alike in many layers is one line."""
    problems: dict[str, int] = {}

    def add(name: str, problem: str) -> None:
        line = f"{re.sub(r'[.][0-9]+[.]', '.*.', name)} {problem}"
        problems[line] = problems.get(line, 0) + 1

    ranks: set[int] = set()
    for name in found:
        if not _TENSOR.fullmatch(name):
            add(name, f"is no LoRA matrix of a linear layer ({_PREFIX}….lora_A.weight or lora_B.weight)")
    for module in _modules(found):
        shape = base.get(f"{module}.weight")
        if shape is None or len(shape) != 2:
            add(module, f"is no linear layer of {model.name}")
            continue
        if not config.targets(module):
            add(module, "is not among the config's target_modules")
        rank = config.rank_of(module)
        ranks.add(rank)
        for half, wanted in (("A", (rank, shape[1])), ("B", (shape[0], rank))):
            name = f"{_PREFIX}{module}.lora_{half}.weight"
            if name not in found:
                add(name, "is missing")
            elif tuple(found[name]) != wanted:
                add(name, f"is {list(found[name])}, {model.name} needs {list(wanted)}")
    if not ranks and not problems:
        add(WEIGHTS, "holds no LoRA matrices")
    if model.max_rank is not None and ranks and max(ranks) > model.max_rank:
        add("rank", f"{max(ranks)} is more than {model.max_rank}, the room of {model.name} (adapters.max_rank)")
    if isinstance(config.target_modules, list):
        linear = [name.removesuffix(".weight") for name, shape in base.items() if len(shape) == 2]
        for target in config.target_modules:
            if not any(module == target or module.endswith(f".{target}") for module in linear):
                add("target_modules", f"names {target!r}, which {model.name} does not have")
            elif not any(module == target or module.endswith(f".{target}") for module in _modules(found)):
                add("target_modules", f"names {target!r}, of which {WEIGHTS} holds nothing")
    return [f"{line} ({count} tensors)" if count > 1 else line for line, count in problems.items()]


def _values(tensors: Mapping[str, Any]) -> Iterator[str]:
    """Numbers that no engine could use: of another kind, not finite, or all zero where the change should be."""
    changes = False
    for name, tensor in tensors.items():
        kind = _FLOATS.get(tensor["dtype"])
        if kind is None:
            yield f"{name} is of type {tensor['dtype']}; LoRA matrices are F32, F16 or BF16"
            continue
        values = np.frombuffer(tensor["data"], dtype=kind)
        if tensor["dtype"] == "BF16":
            # The upper halves of float32 numbers.
            values = (values.astype(np.uint32) << 16).view(np.float32)
        if not np.isfinite(values).all():
            yield f"{name} holds numbers that are not finite"
        changes = changes or (".lora_B." in name and bool(values.any()))
    if not changes and any(".lora_B." in name for name in tensors):
        yield "it changes nothing: all its B matrices are zero, as before any training"
