"""Which sequence lies in which row of the cache, and what finished ones left there for those that begin alike. Knows
tokens and memory; computes nothing.

The running sequences always fill rows 0…n-1, so that a step reads and writes the cache where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.engine import Generation, TokenLogprob
from gateway.logits import LogitRules
from gateway_onnx.cache import RowCache
from gateway_onnx.sampling import Sampler


@dataclass(eq=False, slots=True)
class Running:
    """One generation under way, or what is left of it in its row."""

    generation: Generation
    turn: int
    """Its place in the order of arrival."""
    sampler: Sampler
    tokens: list[int]
    """Prompt and answer so far."""
    rules: LogitRules | None = None
    scores: list[TokenLogprob | None] | None = None
    """The prompt's scores so far, where they are asked for and have not been told yet."""
    computed: int = 0
    """How many of them have keys and values."""
    produced: int = 0
    reused: int = 0
    """How many prompt tokens were found in the cache; told once, with the first token."""


class Rows:
    """The rows of a cache. `places[row]` is a sequence or None; the first `running` of them are being computed."""

    def __init__(self, cache: RowCache) -> None:
        self._cache = cache
        self.places: list[Running | None] = [None] * cache.rows
        self.running = 0
        self.filling: Running | None = None
        """The sequence whose prompt is being computed: in a row of its own, behind the running ones."""

    @property
    def sequences(self) -> list[Running]:
        """The running sequences, by row."""
        return [each for each in self.places[: self.running] if each is not None]

    def has_place(self) -> bool:
        return self.running < len(self.places)

    def used(self) -> int:
        """Tokens of the sequences under way."""
        filling = len(self.filling.tokens) if self.filling is not None else 0
        return filling + sum(len(each.tokens) for each in self.sequences)

    def kept(self) -> int:
        """Tokens that finished sequences left behind."""
        return sum(each.computed for each in self._left())

    def fill(self, sequence: Running) -> None:
        """Give a sequence the row behind the running ones, with as much of its prompt as some row holds already."""
        target = self.running
        # Whoever wants scores needs the logits of every position: nothing is taken over.
        source, shared = self._most_alike(sequence) if sequence.scores is None else (None, 0)
        if source is not None and source in self._left() and 2 * shared >= source.computed:
            # Mostly its own beginning (a conversation's next turn): it goes on in that row.
            self._swap(self.places.index(source), target)
        else:
            self._swap(self._oldest(), target)
            if source is not None:
                self._cache.move(self.places.index(source), target, shared)
        before = self.places[target]
        if before is not None:
            self._cache.trim(target, shared, before.computed)
        sequence.computed = sequence.reused = shared
        self.places[target] = sequence
        self.filling = sequence

    def join(self) -> None:
        """The filling sequence runs from now on."""
        if self.filling is not None:
            # Others may have left meanwhile, and the running rows moved up.
            self._swap(self.places.index(self.filling), self.running)
            self.running += 1
            self.filling = None

    def leave(self, sequence: Running) -> None:
        """Take a sequence out of the computation; what it computed stays until its row is needed."""
        if sequence is self.filling:
            self.filling = None
            return
        # The last one moves into the gap, so that no step computes for nobody.
        self._swap(self.places.index(sequence), self.running - 1)
        self.running -= 1

    def forget(self) -> bool:
        """Give the memory of the longest unused leftover back. False where there is none."""
        left = self._left()
        if not left:
            return False
        self.drop(min(left, key=lambda each: each.turn))
        return True

    def drop(self, sequence: Running) -> None:
        """Give the memory of a sequence that has left back."""
        row = self.places.index(sequence)
        self._cache.trim(row, 0, sequence.computed)
        self.places[row] = None

    def _left(self) -> list[Running]:
        return [each for each in self.places[self.running :] if each is not None and each is not self.filling]

    def _oldest(self) -> int:
        """The row to be overwritten: an empty one, else the one unused for longest."""
        rows = range(self.running, len(self.places))
        return min(rows, key=lambda row: (place.turn + 1 if (place := self.places[row]) is not None else 0, row))

    def _most_alike(self, sequence: Running) -> tuple[Running | None, int]:
        best: Running | None = None
        most = 0
        tokens = sequence.tokens
        for place in self.places:
            # Keys and values are those of the adapter that computed them.
            if place is not None and place.generation.adapter == sequence.generation.adapter:
                # The prompt's last token is always computed: its logits choose the first new one.
                shared = common_prefix(tokens, place.tokens, min(len(tokens) - 1, place.computed))
                if shared > most:
                    best, most = place, shared
        return best, most

    def _swap(self, one: int, other: int) -> None:
        if one == other:
            return
        a, b = self.places[one], self.places[other]
        length_a, length_b = a.computed if a is not None else 0, b.computed if b is not None else 0
        self._cache.swap(one, other, length_a, length_b)
        self.places[one], self.places[other] = b, a


def common_prefix(one: Sequence[int], other: Sequence[int], limit: int) -> int:
    """Tokens that two sequences share from the start, `limit` at most. Slices compare in C: halving beats a loop."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if list(one[low:middle]) == list(other[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low
