"""Where a training stands, as one safetensors file that is replaced whole: a kill at any moment leaves the last one.

Weights, the optimizer's moments and the state of random numbers are tensors; the rest is JSON in the file's header.
Nothing in it can run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save  # pyright: ignore[reportUnknownVariableType]

from gateway.errors import ConfigError

NAME = "checkpoint.safetensors"
Tensors = dict[str, torch.Tensor]


class Progress(msgspec.Struct):
    """What is known after some steps, beside the tensors."""

    job: dict[str, Any]
    """What makes the training what it is; another job cannot go on from here."""
    step: int = 0
    """Steps done."""
    losses: list[float] = []
    """Mean loss over the answers' tokens, for each step."""
    looks: list[tuple[int, float]] = []
    """(steps done, loss on the validation rows), from before the first step on."""
    best_step: int = 0
    seconds: float = 0.0
    """Of computing, over all parts of a training that was resumed."""

    @property
    def best(self) -> float:
        return min(loss for _, loss in self.looks)

    @property
    def since_best(self) -> int:
        """Looks since the best one."""
        return sum(step > self.best_step for step, _ in self.looks)


def to_bytes(progress: Progress, tensors: Mapping[str, torch.Tensor]) -> bytes:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(state, metadata={"progress": msgspec.json.encode(progress).decode()})


def write(folder: Path, content: bytes) -> None:
    """Whole or not at all, also when the power is cut."""
    unfinished = folder / f".{NAME}.part"
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / NAME)


def read(folder: Path) -> tuple[Progress, Tensors]:
    """Raises ConfigError where the file is none of ours."""
    path = folder / NAME
    try:
        with cast(Any, safe_open)(str(path), framework="pt") as file:
            progress = msgspec.json.decode(file.metadata()["progress"], type=Progress)
            return progress, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, KeyError, TypeError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): train from the beginning with --restart") from error


def refuse_other_job(progress: Progress, job: Mapping[str, Any], folder: Path) -> None:
    """Raise ConfigError that names what differs: going on with other data would be neither training."""
    before = progress.job
    changed = [
        f"{name} was {json.dumps(before.get(name))[:60]} and is {json.dumps(job.get(name))[:60]}"
        for name in sorted({*before, *job})
        if before.get(name) != job.get(name)
    ]
    if changed:
        raise ConfigError(
            f"{folder} holds another training ({'; '.join(changed)}): --restart trains from the beginning instead"
        )
