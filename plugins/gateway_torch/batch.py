"""Which row stands in which slot of the cache: those that generate first, without gaps. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence

from gateway_torch.cache import RowCache, room
from gateway_torch.row import Row


class Batch:
    """The rows being computed and their cache. Row i of `rows` has slot i."""

    def __init__(self, cache: RowCache) -> None:
        self.cache = cache
        self.rows: list[Row] = []
        self._generating = 0

    @property
    def generating(self) -> Sequence[Row]:
        """Rows with one token to be computed: the next step is theirs."""
        return self.rows[: self._generating]

    @property
    def prompts(self) -> Sequence[Row]:
        """Rows whose prompts are not through yet."""
        return self.rows[self._generating :]

    @property
    def longest(self) -> int:
        return max((len(row.tokens) for row in self.rows), default=0)

    def fits(self, more: int, tokens: int) -> bool:
        """Whether `more` rows can stand beside these, the longest of all having so many tokens. One always can."""
        count = len(self.rows) + more
        return count <= 1 or count * room(tokens) <= self.cache.limit

    def add(self, row: Row) -> None:
        self.rows.append(row)

    def reserve(self) -> None:
        """Make room for every row's tokens. New rows stand last and have nothing to keep."""
        self.cache.reserve(len(self.rows), self.longest, min(len(self.rows), self.cache.rows))

    def promote(self, row: Row) -> None:
        """This row's prompt is through: it generates from now on."""
        slot, target = self.rows.index(row), self._generating
        self._generating += 1
        if slot != target:
            other = self.rows[target]
            self.cache.swap(slot, target, max(len(row.tokens), other.computed))
            self.rows[slot], self.rows[target] = other, row

    def remove(self, row: Row) -> None:
        """Close the gap: the last that generates takes the row's slot, and the last of all takes that one's."""
        slot = self.rows.index(row)
        if slot < self._generating:
            self._generating -= 1
            self._refill(slot, self._generating)
            slot = self._generating
        self._refill(slot, len(self.rows) - 1)
        self.rows.pop()

    def _refill(self, slot: int, source: int) -> None:
        if slot != source:
            row = self.rows[source]
            if row.computed:
                self.cache.move(source, slot, row.computed)
            self.rows[slot] = row
