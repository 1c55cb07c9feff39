"""Adapters beside one graph: their matrices side by side in memory that we own, and who of a batch uses which of them.

Every site keeps A `[ranks, in]` and B `[ranks, out]` of all loaded adapters, one after the other; a mask leaves each
row the ranks of its own adapter, and a row of the base none. A step without adapters runs the graph without them. Knows
no request; belongs to the thread that steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gateway.errors import AdapterError
from gateway_onnx.lora_files import LowRank, Matrix
from gateway_onnx.lora_graph import LoraGraph, Site


class Adapters:
    """What is loaded beside one graph."""

    def __init__(self, graph: LoraGraph) -> None:
        self._sites = graph.sites
        self._parts = graph.parts
        self._spans: dict[str, tuple[int, int]] = {}
        """Where each adapter's ranks lie, in ranks of one part."""
        self._a: list[Matrix] = [np.zeros((0, site.width), np.float32) for site in graph.sites]
        self._b: list[Matrix] = [np.zeros((0, sum(site.heights)), np.float32) for site in graph.sites]
        self._known = {module for site in graph.sites for module in site.modules}
        self._nothing: Matrix = np.zeros(1, np.float32)
        """Whatever has no size still needs an address."""
        self._masks: dict[int, Matrix] = {}
        self._rows: tuple[str | None, ...] | None = None
        self._span = (0, 0)
        self._changes = 0
        """How often matrices have moved: what was bound before is void."""

    def add(self, id: str, matrices: LowRank) -> None:
        """Place an adapter behind those that are there. Raises AdapterError where it does not fit; then nothing is."""
        if strange := sorted(matrices.keys() - self._known):
            raise AdapterError(f"{id}: the onnx graph has no place for {', '.join(strange[:5])}")
        rank = max(a.shape[0] for a, _ in matrices.values())
        start = max((end for _, end in self._spans.values()), default=0)
        blocks = [_block(id, site, matrices, rank) for site in self._sites]
        for index, (a, b) in enumerate(blocks):
            self._a[index] = np.concatenate([self._a[index], a])
            self._b[index] = np.concatenate([self._b[index], b])
        self._spans[id] = (start, start + rank)
        self._moved()

    def remove(self, id: str) -> None:
        """Give an adapter's memory back; unknown ids are fine."""
        span = self._spans.pop(id, None)
        if span is None:
            return
        start, end = span
        width = end - start
        for index, site in enumerate(self._sites):
            gone = slice(start * site.parts, end * site.parts)
            self._a[index] = np.delete(self._a[index], gone, axis=0)
            self._b[index] = np.delete(self._b[index], gone, axis=0)
        self._spans = {name: (s - width, e - width) if s >= end else (s, e) for name, (s, e) in self._spans.items()}
        self._moved()

    @property
    def used(self) -> bool:
        """Whether any row of the next run has an adapter."""
        return self._span[1] > 0

    def plan(self, rows: Sequence[str | None]) -> None:
        """Row i of the next run is `rows[i]`'s. Ids must be loaded."""
        asked = tuple(rows)
        if asked == self._rows:
            return
        spans = [self._spans[row] if row is not None else (0, 0) for row in asked]
        used = [span for span in spans if span[1]]
        low, high = (min(start for start, _ in used), max(end for _, end in used)) if used else (0, 0)
        for parts in self._parts:
            mask: Matrix = np.zeros((len(asked), 1, parts * (high - low)), np.float32)
            for row, (start, end) in enumerate(spans):
                if end:
                    mask[row, 0, parts * (start - low) : parts * (end - low)] = 1
            self._masks[parts] = mask
        self._rows, self._span = asked, (low, high)

    def bind(self, binding: Any, before: object) -> object:
        """Bind masks, and matrices where this binding holds others. `before`: what this gave for it last time."""
        low, high = self._span
        for parts, mask in self._masks.items():
            self._bind(binding, f"lora_mask.{parts}", mask)
        now = (self._changes, low, high)
        if now != before:
            for site, a, b in zip(self._sites, self._a, self._b, strict=True):
                used = slice(low * site.parts, high * site.parts)
                self._bind(binding, f"lora_a.{site.name}", a[used])
                self._bind(binding, f"lora_b.{site.name}", b[used])
        return now

    def _bind(self, binding: Any, name: str, values: Matrix) -> None:
        held = values if values.size else self._nothing
        binding.bind_input(name, "cpu", 0, np.float32, values.shape, held.ctypes.data)

    def _moved(self) -> None:
        self._changes += 1
        self._rows, self._span = None, (0, 0)


def _block(id: str, site: Site, matrices: LowRank, rank: int) -> tuple[Matrix, Matrix]:
    """An adapter's share of a site: what the product packs is changed part by part, each into its own columns."""
    a: Matrix = np.zeros((site.parts * rank, site.width), np.float32)
    b: Matrix = np.zeros((site.parts * rank, sum(site.heights)), np.float32)
    column = 0
    for part, (module, height) in enumerate(zip(site.modules, site.heights, strict=True)):
        if module in matrices:
            own_a, own_b = matrices[module]
            if own_a.shape[1] != site.width or own_b.shape[1] != height:
                raise AdapterError(
                    f"{id}: {module} is {site.width} to {height} in the base, "
                    f"{own_a.shape[1]} to {own_b.shape[1]} in the adapter"
                )
            first = part * rank
            a[first : first + len(own_a)] = own_a
            b[first : first + len(own_b), column : column + height] = own_b
        column += height
    return a, b
