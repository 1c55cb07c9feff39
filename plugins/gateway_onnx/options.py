"""What `options:` of an onnx model may say, and what follows from it. Knows YAML paths, imports no engine."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.backend import BackendContext
from gateway.errors import ConfigError

Provider = Literal["cpu", "cuda"]
Batching = Literal["rows", "genai"]
Precision = Literal["fp32", "fp16", "bf16", "int4"]

_PRECISIONS: dict[str, Precision] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int4": "int4"}


class OnnxOptions(BaseModel):
    """Settings of one onnx model."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    provider: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the graph runs; auto: cuda where onnxruntime-genai was built for it and a GPU answers, else cpu."""
    batching: Literal["auto", "rows", "genai"] = "auto"
    """`rows`: our own continuous batching over the graph (cpu). `genai`: onnxruntime-genai's Engine, which batches
    continuously on cuda; on a CPU it runs fixed batches of four and lets newcomers wait until all four are done.
    auto: rows on cpu, genai on cuda."""
    max_batch_size: int = Field(default=16, ge=1, le=256)
    """Sequences computed together; more wait in a queue."""
    max_waiting: int = Field(default=1024, ge=0)
    """Generations that may wait for a place; beyond them: 503."""
    cache_gb: float = Field(default=2.0, gt=0)
    """Memory that keys and values may take, in GiB (cpu). When it runs short the youngest sequence waits and is
    computed again later. At least one sequence of the model's full length is always allowed."""
    prefill_chunk: int = Field(default=128, ge=16, le=4096)
    """Prompt tokens computed between two steps of the running sequences: larger is faster for prompts and makes the
    others stutter more."""
    spinning: bool = True
    """Compute threads spin between two operators of one step instead of sleeping: a quarter faster where the cores are
    free. They always sleep between steps."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model's spec comes down to on this machine."""

    options: OnnxOptions
    provider: Provider
    batching: Batching
    precision: Precision
    dtype: str
    """The precision as the config names it."""
    threads: int


def parse_options(context: BackendContext) -> OnnxOptions:
    """Raises ConfigError with one line for each problem, by its YAML path."""
    try:
        return OnnxOptions.model_validate(context.spec.options)
    except ValidationError as error:
        lines: list[str] = []
        for problem in error.errors(include_url=False):
            where = ".".join(str(part) for part in ("models", context.name, "options", *problem["loc"]))
            known = ", ".join(OnnxOptions.model_fields)
            unknown = problem["type"] == "extra_forbidden"
            lines.append(f"{where}: " + (f"unknown setting; onnx knows: {known}" if unknown else problem["msg"]))
        raise ConfigError("\n".join(lines)) from error


def plan(context: BackendContext) -> Plan:
    """Decide what `auto` means here. Raises ConfigError where the parts do not fit together."""
    options = parse_options(context)
    provider: Provider = _cuda_or_cpu() if options.provider == "auto" else options.provider
    if options.provider == "cuda" and _cuda_or_cpu() != "cuda":
        raise ConfigError(
            f"models.{context.name}.options.provider: cuda was asked, but onnxruntime-genai finds none here; "
            "install the gpu profile on a machine with a GPU, or say `cpu`"
        )
    batching: Batching = options.batching if options.batching != "auto" else "genai" if provider == "cuda" else "rows"
    if batching == "rows" and provider == "cuda":
        raise ConfigError(f"models.{context.name}.options.batching: `rows` runs on cpu only; say `genai` or `auto`")
    if batching == "genai" and context.spec.adapters is not None:
        raise ConfigError(
            f"models.{context.name}.adapters: onnx takes adapters with `options.batching: rows` (cpu) alone, "
            "not with onnxruntime-genai's Engine; leave `adapters` out, or use the vllm or torch backend"
        )
    dtype = context.spec.dtype
    if dtype == "auto":
        dtype = "float32" if provider == "cpu" else _checkpoint_dtype(context.model_path)
    if provider == "cpu" and dtype not in ("float32", "int4"):
        raise ConfigError(f"models.{context.name}.dtype: onnx computes float32 or int4 on a CPU, not {dtype}")
    if provider == "cuda" and dtype == "float32":
        raise ConfigError(f"models.{context.name}.dtype: onnx computes float16, bfloat16 or int4 on a GPU, not float32")
    return Plan(options, provider, batching, _PRECISIONS[dtype], dtype, context.spec.resources.threads or _cores())


def _cores() -> int:
    """Cores this process may use, which a container may hold below the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cuda_or_cpu() -> Provider:
    genai: Any = import_module("onnxruntime_genai")
    return "cuda" if genai.is_cuda_available() else "cpu"


def _checkpoint_dtype(folder: Path | None) -> str:
    config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8")) if folder is not None else {}
    return "bfloat16" if "bfloat16" in (config.get("dtype"), config.get("torch_dtype")) else "float16"
