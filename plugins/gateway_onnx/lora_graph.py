"""Gives a decoder graph inputs for adapters: after each matrix product of a layer, `+ ((x Aᵀ) · mask) B`. Knows names
and shapes; knows no adapter.

The graph on disk stays as it is: the changed one is made in memory, in milliseconds, and reads the same weights.
"""

# onnx's own annotations are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError

_LAYER = re.compile(r"/model/layers\.(\d+)/(attn|mlp)/(\w+)/MatMul(?:NBits|_Q\d)?")
_BLOCK = {"attn": "self_attn", "mlp": "mlp"}
_PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""What the model builder packs into one product."""
_LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@dataclass(frozen=True, slots=True)
class Site:
    """One matrix product that adapters can change."""

    name: str
    """Its inputs are `lora_a.NAME` `[parts · ranks, in]` and `lora_b.NAME` `[parts · ranks, out]`."""
    modules: tuple[str, ...]
    """The base's linear layers that it computes, side by side in its output."""
    width: int
    """Of its input."""
    heights: tuple[int, ...]
    """Of its output: one for each of `modules`."""

    @property
    def parts(self) -> int:
        return len(self.modules)


@dataclass(frozen=True, slots=True)
class LoraGraph:
    """A graph with inputs for adapters."""

    model: bytes
    sites: tuple[Site, ...]
    parts: tuple[int, ...]
    """For each of these there is a mask `lora_mask.PARTS` `[rows, 1, parts · ranks]`."""


def with_adapters(path: Path, queries: int, keys: int) -> LoraGraph:
    """Read a graph and add the inputs. `queries`, `keys`: widths of all their heads together. Raises ConfigError where
    no product is known by its name."""
    onnx: Any = import_module("onnx")
    model: Any = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    sites: list[Site] = []
    nodes: list[Any] = []
    for node in graph.node:
        nodes.append(node)
        match = _LAYER.fullmatch(node.name)
        names = _PARTS.get(match[3], (match[3],)) if match else ()
        if match is None or not set(names) <= _LINEAR:
            continue
        attributes = {each.name: each.i for each in node.attribute}
        width, height = (attributes["K"], attributes["N"]) if "K" in attributes else shapes[node.input[1]]
        heights = (queries, keys, keys) if len(names) == 3 else (height // len(names),) * len(names)
        modules = tuple(f"model.layers.{match[1]}.{_BLOCK[match[2]]}.{name}" for name in names)
        site = Site(f"{match[1]}.{match[3]}", modules, width, heights)
        sites.append(site)
        nodes += _change(onnx.helper, node, site)
    if not sites:
        raise ConfigError(f"{path}: this graph's products bear no names that adapters could be laid on")
    del graph.node[:]
    graph.node.extend(nodes)
    parts = tuple(sorted({site.parts for site in sites}))
    for name, shape in _inputs(sites, parts):
        graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    return LoraGraph(model.SerializeToString(), tuple(sites), parts)


def _change(helper: Any, node: Any, site: Site) -> list[Any]:
    """Nodes that change a product's output, which afterwards bears the name that others read."""
    made = node.output[0]
    inner = [f"{made}/lora/{part}" for part in ("base", "low", "own", "change")]
    node.output[0] = inner[0]
    return [
        helper.make_node(
            "FusedMatMul", [node.input[0], f"lora_a.{site.name}"], [inner[1]], domain="com.microsoft", transB=1
        ),
        helper.make_node("Mul", [inner[1], f"lora_mask.{site.parts}"], [inner[2]]),
        helper.make_node("MatMul", [inner[2], f"lora_b.{site.name}"], [inner[3]]),
        helper.make_node("Add", [inner[0], inner[3]], [made]),
    ]


def _inputs(sites: list[Site], parts: tuple[int, ...]) -> list[tuple[str, list[Any]]]:
    inputs: list[tuple[str, list[Any]]] = [
        (f"lora_mask.{count}", ["batch_size", 1, f"lora_ranks.{count}"]) for count in parts
    ]
    for site in sites:
        inputs.append((f"lora_a.{site.name}", [f"lora_ranks.{site.parts}", site.width]))
        inputs.append((f"lora_b.{site.name}", [f"lora_ranks.{site.parts}", sum(site.heights)]))
    return inputs
