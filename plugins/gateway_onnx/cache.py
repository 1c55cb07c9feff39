"""Memory for keys and values: one row a sequence, each as long as the context may grow, backed by pages only where
something was written. Knows no graph and no request."""

from __future__ import annotations

import math
import mmap

import numpy as np
from numpy.typing import NDArray


class RowCache:
    """[planes, rows, heads, length, head_size] float32 in one private mapping. A plane is one layer's keys or values.

    The mapping reserves addresses, not memory: a row costs what its tokens need, rounded up to pages.
    """

    def __init__(self, planes: int, rows: int, heads: int, length: int, head_size: int) -> None:
        position = head_size * 4
        # Each head's stretch starts on a page, so that the tail of a row can be given back to the system.
        step = mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, position)
        self.planes, self.rows, self.heads, self.head_size = planes, rows, heads, head_size
        self.length = math.ceil(length / step) * step
        self.token_bytes = planes * heads * position
        """Bytes one token takes in all planes."""
        self._head_bytes = self.length * position
        self._row_bytes = heads * self._head_bytes
        self._plane_bytes = rows * self._row_bytes
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._mapping = mmap.mmap(-1, planes * self._plane_bytes, flags=flags)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            # With 2 MiB pages a sequence of ten tokens would take as much as one of eight thousand.
            self._mapping.madvise(mmap.MADV_NOHUGEPAGE)
        flat: NDArray[np.float32] = np.frombuffer(self._mapping, np.float32)
        self._start = int(flat.ctypes.data)
        self._values = flat.reshape(planes, rows, heads, self.length, head_size)

    def address(self, plane: int, row: int) -> int:
        """Where a row of a plane begins; the rows after it follow without a gap."""
        return self._start + plane * self._plane_bytes + row * self._row_bytes

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` of one row into another."""
        if source != target:
            self._values[:, target, :, :tokens] = self._values[:, source, :, :tokens]

    def swap(self, one: int, other: int, one_tokens: int, other_tokens: int) -> None:
        """Exchange two rows that were written so far. A plane at a time, so that little is held twice."""
        tokens = max(one_tokens, other_tokens)
        if one == other or tokens == 0:
            return
        for plane in self._values:
            held = plane[one, :, :one_tokens].copy()
            plane[one, :, :other_tokens] = plane[other, :, :other_tokens]
            plane[other, :, :one_tokens] = held
        self.trim(one, other_tokens, one_tokens)
        self.trim(other, one_tokens, other_tokens)

    def trim(self, row: int, tokens: int, used: int) -> None:
        """Give the pages behind the first `tokens` of a row back to the system; `used`: how far it was written."""
        position = self.head_size * 4
        start = math.ceil(tokens * position / mmap.PAGESIZE) * mmap.PAGESIZE
        end = math.ceil(used * position / mmap.PAGESIZE) * mmap.PAGESIZE
        if end <= start:
            return
        for plane in range(self.planes):
            for head in range(self.heads):
                offset = plane * self._plane_bytes + row * self._row_bytes + head * self._head_bytes
                self._mapping.madvise(mmap.MADV_DONTNEED, offset + start, end - start)
