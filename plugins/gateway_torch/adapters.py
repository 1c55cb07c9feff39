"""Adapters beside a model: each row of a batch through its own, or through none, by one product of a layer for all.

Every changed layer keeps the matrices of all loaded adapters side by side, A `[ranks, in]` and B `[ranks, out]`. A
batch computes `y += ((x Aᵀ) · mask) B`, in which the mask `[rows, 1, ranks]` leaves each row the ranks of its own
adapter, and a row of the base none: zeros are added there. PEFT's own way of mixing (pick an adapter's rows, compute,
put them back, adapter by adapter) takes ten times as many of PyTorch's calls a layer for four adapters. Belongs to the
thread that computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gateway.errors import AdapterError
from gateway_torch.lora_files import LowRank


@dataclass(slots=True, eq=False)
class _Layer:
    """One changed layer."""

    a: torch.Tensor
    b: torch.Tensor
    used_a: torch.Tensor
    """What the rows of this batch need of it: a view."""
    used_b: torch.Tensor
    hook: Any = None


class Adapters:
    """What is loaded beside one model."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        self._model = model
        self._dtype, self._device = dtype, device
        self._spans: dict[str, tuple[int, int]] = {}
        """Where each adapter's ranks lie in every layer's matrices."""
        self._layers: dict[str, _Layer] = {}
        self._rows: tuple[str | None, ...] = ()
        self._mask: torch.Tensor | None = None
        """Of the rows to come; None where none of them has an adapter."""

    def add(self, id: str, matrices: LowRank) -> None:
        """Place an adapter behind those that are there. Raises AdapterError where it does not fit; then nothing is."""
        linear = self._modules()
        for name, (a, b) in matrices.items():
            module = linear.get(name)
            if not isinstance(module, torch.nn.Linear):
                raise AdapterError(f"{id}: the base has no linear layer {name}")
            if a.shape[1] != module.in_features or b.shape[1] != module.out_features:
                raise AdapterError(
                    f"{id}: {name} is {module.in_features} to {module.out_features} in the base, "
                    f"{a.shape[1]} to {b.shape[1]} in the adapter"
                )
        start = max((end for _, end in self._spans.values()), default=0)
        rank = max(a.shape[0] for a, _ in matrices.values())
        made: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for name in self._layers.keys() | matrices.keys():
            module: Any = linear[name]
            before = self._layers.get(name)
            pair: list[torch.Tensor] = []
            for half, width in ((0, module.in_features), (1, module.out_features)):
                # Where one adapter leaves a layer alone it has zeros: ranks lie at the same place in all layers.
                whole = torch.zeros((start + rank, width), dtype=self._dtype, device=self._device)
                if before is not None:
                    whole[:start] = (before.a, before.b)[half]
                if name in matrices:
                    new = matrices[name][half]
                    whole[start : start + new.shape[0]] = new
                pair.append(whole)
            made[name] = (pair[0], pair[1])
        # From here on nothing can fail.
        for name, (a, b) in made.items():
            self._place(name, linear[name], a, b)
        self._spans[id] = (start, start + rank)
        self._rows, self._mask = (), None

    def remove(self, id: str) -> None:
        """Give an adapter's memory back; unknown ids are fine."""
        span = self._spans.pop(id, None)
        if span is None:
            return
        start, end = span
        width = end - start
        self._spans = {name: (s - width, e - width) if s >= end else (s, e) for name, (s, e) in self._spans.items()}
        modules = self._modules()
        for name, layer in list(self._layers.items()):
            if self._spans:
                a, b = (torch.cat([half[:start], half[end:]]) for half in (layer.a, layer.b))
                if bool(b.any()):
                    self._place(name, modules[name], a, b)
                    continue
            # Nobody changes this layer any more.
            layer.hook.remove()
            del self._layers[name]
        self._rows, self._mask = (), None

    def plan(self, rows: Sequence[str | None]) -> None:
        """Row i of the next forward is `rows[i]`'s. Ids must be loaded."""
        asked = tuple(rows)
        if asked == self._rows:
            return
        spans = [self._spans[row] if row is not None else (0, 0) for row in asked]
        used = [span for span in spans if span != (0, 0)]
        self._rows = asked
        if not used:
            self._mask = None
            return
        low, high = min(start for start, _ in used), max(end for _, end in used)
        ranks = torch.arange(low, high, device=self._device)[None]
        starts, ends = torch.tensor(spans, device=self._device).T[:, :, None]
        self._mask = ((starts <= ranks) & (ranks < ends)).to(self._dtype)[:, None]
        for layer in self._layers.values():
            layer.used_a, layer.used_b = layer.a[low:high], layer.b[low:high]

    def _modules(self) -> dict[str, torch.nn.Module]:
        model: Any = self._model
        return dict(model.named_modules())

    def _place(self, name: str, module: torch.nn.Module, a: torch.Tensor, b: torch.Tensor) -> None:
        layer = self._layers.get(name)
        if layer is not None:
            layer.a, layer.b, layer.used_a, layer.used_b = a, b, a, b
            return
        layer = self._layers[name] = _Layer(a, b, a, b)

        def change(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...], answer: torch.Tensor) -> None:
            mask = self._mask
            if mask is not None:
                low = torch.nn.functional.linear(arguments[0], layer.used_a).mul_(mask)
                # In place: `answer` is this layer's own and nobody has seen it yet.
                answer.view(-1, answer.shape[-1]).addmm_(low.view(-1, low.shape[-1]), layer.used_b)

        layer.hook = module.register_forward_hook(change)
