"""How adapters are computed on a CPU: all of a batch in two products a layer. Runs in vLLM's workers.

vLLM 0.32's own way copies an adapter's matrices for every token, and gives tokens of the base the adapter in the last
slot, since index -1 counts from the end: base traffic beside adapter traffic would be wrong. Here the matrices of all
adapters in use stand side by side, and a mask keeps each token to its own. The only room that changes a class of
vLLM's workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Extension:
    """vLLM mixes this into its worker's class (`worker_extension_cls`)."""

    def gateway_group_adapters(self) -> None:
        """Compute adapters this way from now on. Called once, before the first request."""
        from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

        install(PunicaWrapperCPU)


def install(wrapper: type[Any]) -> None:
    """Change vLLM's class for CPUs. Once or often."""
    if hasattr(wrapper, "gateway_batch"):
        return
    update: Callable[..., None] = wrapper.update_metadata

    def update_metadata(self: Any, mapping: Any, lora_index_to_id: list[int | None], *rest: Any, **named: Any) -> None:
        update(self, mapping, lora_index_to_id, *rest, **named)
        if self.gateway_batch is None:
            self.gateway_batch = Batch()
        self.gateway_batch.update(self.token_lora_indices, lora_index_to_id)

    wrapper.gateway_batch = None
    wrapper.update_metadata = update_metadata
    wrapper.add_lora_linear = add_lora_linear
    wrapper.add_lora_logits = add_lora_logits
    wrapper.add_lora_embedding = add_lora_embedding


class Batch:
    """Which adapters the tokens of the next step use, and every layer's matrices of those in use lately."""

    def __init__(self) -> None:
        self.slots: list[tuple[int, int | None]] = []
        """(slot, vLLM's id of the adapter in it), in the order in which matrices stand side by side."""
        self.mask: Any = None
        """[tokens, slots], 1 where a token is an adapter's; None where all are the base's."""
        self._layers: dict[int, tuple[Any, list[Any]]] = {}

    def update(self, indices: Any, ids: Sequence[int | None]) -> None:
        """`indices`: each token's slot, -1 for the base. `ids`: the adapter in each slot."""
        slots: list[int] = indices.unique().tolist()
        used = [(slot, ids[slot]) for slot in slots if slot >= 0]
        if any(pair not in self.slots for pair in used):
            self.slots = used + [pair for pair in self.slots if pair not in used and ids[pair[0]] == pair[1]]
            self._layers.clear()
        self.mask = self.mask_of(indices) if used else None

    def mask_of(self, indices: Any) -> Any:
        """The mask for these tokens."""
        import torch

        slots = torch.tensor([slot for slot, _ in self.slots], dtype=indices.dtype, device=indices.device)
        return (indices[:, None] == slots).float()

    def layer(self, lora_a: Sequence[Any], lora_b: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One layer's matrices side by side: A of all slices [in, slices · slots · rank], each B [slots · rank, out].

        `lora_a`: [all slots, 1, rank, in] for each slice of the layer's output; `lora_b`: [all slots, 1, out, rank].
        """
        key = lora_a[0].data_ptr()
        if key not in self._layers:
            import torch

            slots = [slot for slot, _ in self.slots]
            down = torch.cat([a[slots, 0].flatten(0, 1) for a in lora_a]).t()
            up = [b[slots, 0].transpose(1, 2).flatten(0, 1).contiguous() for b in lora_b]
            self._layers[key] = (down, up)
        return self._layers[key]


def add_lora_linear(
    self: Any,
    y: Any,
    x: Any,
    lora_a_stacked: Sequence[Any],
    lora_b_stacked: Sequence[Any],
    scale: float,
    output_slices: Sequence[int],
    **_: Any,
) -> None:
    """`y += x Aᵀ Bᵀ · scale`, for each token with its own adapter's. y [tokens, sum(output_slices)], x [tokens, in]."""
    batch: Batch | None = self.gateway_batch
    if batch is not None and batch.mask is not None:
        _add(batch, batch.mask, y, x, lora_a_stacked, lora_b_stacked, scale)


def add_lora_logits(self: Any, y: Any, *_: Any, **__: Any) -> None:
    """Adapters of the last layer are refused when they are loaded: vLLM does not say here whose a scored prompt's rows
    are, and scores without the adapter would be wrong in silence."""


def add_lora_embedding(self: Any, y: Any, *_: Any, **__: Any) -> None:
    """Adapters of embeddings are refused when they are verified: there is nothing to add."""


def _add(batch: Batch, mask: Any, y: Any, x: Any, lora_a: Sequence[Any], lora_b: Sequence[Any], scale: float) -> None:
    y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
    down, up = batch.layer(lora_a, lora_b)
    tokens, slots = mask.shape
    low = (x.to(down.dtype) @ down).view(tokens, len(lora_b), slots, -1) * mask[:, None, :, None].to(down.dtype)
    low = low.flatten(2)
    begin = 0
    for index, matrix in enumerate(up):
        # The last layer's adapter may have a few more columns than its output: padding.
        end = min(begin + matrix.shape[1], y.shape[1])
        part = y[:, begin:end]
        matrix = matrix[:, : end - begin]
        if part.dtype == matrix.dtype:
            part.addmm_(low[:, index], matrix, alpha=scale)
        else:
            part.add_((low[:, index] @ matrix).to(part.dtype), alpha=scale)
        begin = end
