"""The settings of a `backend: torch` model, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import ConfigError


class TorchOptions(BaseModel):
    """`options:` of a model."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """auto: the first CUDA device, else the CPU."""
    max_batch_size: int = Field(default=32, ge=1, le=1024)
    """Sequences computed together; more wait their turn."""
    cache_tokens: int | None = Field(default=None, ge=256)
    """Room for keys and values, in tokens over all sequences, each counted as the longest. When it is used up the
    youngest sequence waits and is computed again later. Default: 16384, or the longest answer if that is more."""
    prefill_tokens: int = Field(default=256, ge=16)
    """Prompt tokens computed between two steps of those that are generating: bounds how long a prompt stalls them."""
    max_waiting: int = Field(default=1024, ge=1)
    """Sequences that may wait; beyond them: 503."""


def read_options(model: str, options: Mapping[str, Any]) -> TorchOptions:
    """Check a model's `options`. Raises ConfigError with one line for each problem, each with its YAML path."""
    try:
        return TorchOptions.model_validate(dict(options))
    except ValidationError as error:
        lines: list[str] = []
        for problem in error.errors(include_url=False):
            path = ".".join(["models", model, "options", *map(str, problem["loc"])])
            known = ", ".join(TorchOptions.model_fields)
            unknown = f"unknown setting; the torch backend knows {known}"
            lines.append(f"{path}: {unknown if problem['type'] == 'extra_forbidden' else problem['msg']}")
        raise ConfigError("\n".join(lines)) from error
