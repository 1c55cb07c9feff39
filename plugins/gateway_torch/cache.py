"""Keys and values of every row, preallocated and written in place: a step copies nothing but its own tokens.

Passed to Transformers' models as `past_key_values`, of which they call `update`. Knows no request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

BLOCK = 256
"""Room grows by so many tokens a row."""


def room(tokens: int) -> int:
    """Tokens rounded up to whole blocks."""
    return -(-tokens // BLOCK) * BLOCK


class RowCache:
    """Per layer two tensors `[rows, key heads, capacity, head size]`; row i keeps its token t at `[i, :, t]`."""

    def __init__(self, limit: int, device: torch.device) -> None:
        self.limit = limit
        """Rows × capacity never goes beyond this."""
        self.device = device
        self.rows = 0
        self.capacity = 0
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._ends = 0
        self._slots: Sequence[int] = ()
        self._starts: Sequence[int] = ()
        self._counts: Sequence[int] = ()
        self._view: slice | torch.Tensor = slice(0)
        self._row_index: torch.Tensor | None = None
        self._column_index: torch.Tensor | None = None

    def reserve(self, rows: int, tokens: int, used: int) -> None:
        """Make room for so many rows of so many tokens. The first `used` rows keep what they have."""
        if rows <= self.rows and tokens <= self.capacity:
            return
        new_rows = max(self.rows, 1 << (rows - 1).bit_length())
        new_capacity = max(self.capacity, room(tokens))
        if new_rows * new_capacity > self.limit:
            new_rows, new_capacity = rows, room(tokens)
        keep = min(self.capacity, new_capacity)
        for tensors in (self._keys, self._values):
            for layer, old in enumerate(tensors):
                # Zeros, not whatever memory held: a masked position still takes part in a product, and 0 × NaN is NaN.
                new = old.new_zeros((new_rows, old.shape[1], new_capacity, old.shape[3]))
                new[:used, :, :keep] = old[:used, :, :keep]
                tensors[layer] = new
        self.rows, self.capacity = new_rows, new_capacity

    def plan_step(self, lengths: torch.Tensor, longest: int) -> None:
        """The next forward computes one token for each of the first rows, row i's at position `lengths[i]`."""
        count = lengths.shape[0]
        self._row_index = torch.arange(count, device=self.device)
        self._column_index = lengths
        self._view = slice(0, count)
        self._ends = longest + 1

    def plan_chunk(self, slots: Sequence[int], starts: Sequence[int], counts: Sequence[int]) -> None:
        """The next forward computes `counts[i]` tokens of row `slots[i]` from position `starts[i]` on. They stand at
        the right end of input row i; what is left of them is padding and is not kept."""
        self._row_index = None
        self._slots, self._starts, self._counts = slots, starts, counts
        in_order = list(slots) == list(range(slots[0], slots[0] + len(slots)))
        # Rows that do not stand together have to be copied to be seen as one tensor.
        self._view = slice(slots[0], slots[0] + len(slots)) if in_order else torch.tensor(slots, device=self.device)
        self._ends = max(start + count for start, count in zip(starts, counts, strict=True))

    def move(self, source: int, target: int, length: int) -> None:
        """Row `target` becomes what row `source` is."""
        for tensors in (self._keys, self._values):
            for tensor in tensors:
                tensor[target, :, :length] = tensor[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        for tensors in (self._keys, self._values):
            for tensor in tensors:
                held = tensor[one, :, :length].clone()
                tensor[one, :, :length] = tensor[other, :, :length]
                tensor[other, :, :length] = held

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by each attention layer: keep `[inputs, heads, tokens, size]`, give everything so far."""
        if layer == len(self._keys):
            for tensors, new in ((self._keys, key), (self._values, value)):
                tensors.append(new.new_zeros((self.rows, new.shape[1], self.capacity, new.shape[3])))
        keys, values = self._keys[layer], self._values[layer]
        if self._row_index is not None:
            keys[self._row_index, :, self._column_index] = key[:, :, 0]
            values[self._row_index, :, self._column_index] = value[:, :, 0]
        else:
            for index, (slot, start, count) in enumerate(zip(self._slots, self._starts, self._counts, strict=True)):
                keys[slot, :, start : start + count] = key[index, :, -count:]
                values[slot, :, start : start + count] = value[index, :, -count:]
        if isinstance(self._view, slice):
            return keys[self._view, :, : self._ends], values[self._view, :, : self._ends]
        return (
            keys[:, :, : self._ends].index_select(0, self._view),
            values[:, :, : self._ends].index_select(0, self._view),
        )

    def get_seq_length(self, *_: Any) -> int:
        """Asked by models that are not told positions; ours always are."""
        return self._ends
