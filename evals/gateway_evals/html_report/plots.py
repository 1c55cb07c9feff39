"""Where everything of a picture stands, in the units of its SVG: the templates draw it. Knows no model and no file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway_evals.front import front

TRACK = 220
"""Width of one interval's line."""

_MARGIN = 6

_LABELS = (-9, 19, -22, 32, -35, 45)
"""Where a label may stand, from its dot."""

_LETTER = 7
"""About the width of a label's letter."""


@dataclass(frozen=True, slots=True)
class Track:
    """One interval on a line."""

    value: float
    low: float
    high: float
    zero: float | None = None
    """Where 0 is, for differences."""


def track(
    value: float, low: float | None, high: float | None, domain: tuple[float, float], *, zero: bool = False
) -> Track:
    """A value and its interval on a line that spans `domain`."""
    start, end = domain
    width = (end - start) or 1.0

    def place(number: float) -> float:
        return round(_MARGIN + (min(max(number, start), end) - start) / width * (TRACK - 2 * _MARGIN), 1)

    return Track(
        place(value),
        place(value if low is None else low),
        place(value if high is None else high),
        place(0.0) if zero else None,
    )


@dataclass(frozen=True, slots=True)
class Dot:
    """One model: what it costs (x), how good it is (y), and how sure that is."""

    label: str
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Placed:
    """A dot on the picture."""

    dot: Dot
    x: float
    y: float
    low: float
    high: float
    anchor: str
    label_x: float
    label_y: float
    best: bool
    """On the Pareto front."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """Quality against one cost."""

    title: str
    x_title: str
    dots: tuple[Placed, ...]
    path: str
    """The front, from dot to dot."""
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: int = 460
    height: int = 280
    left: int = 44
    right: int = 16
    top: int = 12
    bottom: int = 44

    @property
    def best(self) -> list[Placed]:
        return [dot for dot in self.dots if dot.best]


def scatter(title: str, x_title: str, dots: Sequence[Dot]) -> Scatter | None:
    """None where there is nothing to draw."""
    if not dots:
        return None
    # Labels stand right of their dots: the last one needs its room.
    room = 16 + min(_LETTER * max(len(dot.label) for dot in dots), 140)
    frame = Scatter(title, x_title, (), "", (), (), right=room)
    x_ticks = _ticks(0.0, max(dot.x for dot in dots) * 1.05 or 1.0)
    y_ticks = _ticks(max(0.0, min(dot.low for dot in dots)), max(dot.high for dot in dots))
    (x_low, x_high), (y_low, y_high) = (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1])

    def across(value: float) -> float:
        return round(frame.left + (value - x_low) / (x_high - x_low) * (frame.width - frame.left - frame.right), 1)

    def up(value: float) -> float:
        share = (value - y_low) / (y_high - y_low)
        return round(frame.height - frame.bottom - share * (frame.height - frame.top - frame.bottom), 1)

    best = front([(dot.x, dot.y) for dot in dots])
    taken: list[tuple[float, float, float]] = []
    placed: list[Placed] = []
    for place, dot in enumerate(dots):
        x, y = across(dot.x), up(dot.y)
        start, end = x + 8, x + 8 + _LETTER * len(dot.label)
        right = end < frame.width
        if not right:
            start, end = x - 8 - _LETTER * len(dot.label), x - 8
        beside = [other for since, upto, other in taken if start < upto and since < end]
        # A dot keeps others' labels off as a line of text at its height would.
        beside += [up(each.y) + 4 for each in dots if each is not dot and start - 6 < across(each.x) < end + 6]
        # Above its dot, below it, then further away: never on the height of dots.
        label_y = next(
            (y + off for off in _LABELS if all(abs(y + off - other) >= 13 for other in beside)), y + _LABELS[0]
        )
        taken.append((start, end, label_y))
        placed.append(
            Placed(
                dot, x, y, up(dot.low), up(dot.high), "start" if right else "end", x + (8 if right else -8), label_y,
                place in best,
            )
        )  # fmt: skip
    path = " ".join(f"{'L' if index else 'M'}{placed[place].x} {placed[place].y}" for index, place in enumerate(best))
    return Scatter(
        title, x_title, tuple(placed), path,
        tuple((across(tick), f"{tick:g}") for tick in x_ticks),
        tuple((up(tick), f"{tick:g}") for tick in y_ticks),
        right=frame.right,
    )  # fmt: skip


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers around a range."""
    span = (high - low) or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step = next(step * times for times in (1, 2, 2.5, 5, 10) if span / (step * times) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
