"""Many tests at once: the chance that any of them errs."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given: below 0.05 means so for the whole family."""
    count = len(p_values)
    adjusted = [0.0] * count
    largest = 0.0
    for rank, place in enumerate(sorted(range(count), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
