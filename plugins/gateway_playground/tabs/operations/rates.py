"""Rates out of counters: what changed between two looks at `/status`. Knows no page."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEPT = 150
"""Looks that are kept: five minutes at one every two seconds."""

_COUNTED = ("requests", "failed", "completion_tokens", "streams", "first_token_s")


@dataclass(frozen=True, slots=True)
class Point:
    """The gateway between two looks, and at the second of them."""

    time: float
    """Unix time in seconds."""
    requests_per_s: float
    failed_per_s: float
    tokens_per_s: float
    first_token_s: float | None
    """Mean time to first token of the streams that ended in between; None where none did."""
    in_flight: int


@dataclass(slots=True, eq=False)
class History:
    """What one person's tab has seen."""

    points: deque[Point] = field(default_factory=lambda: deque[Point](maxlen=KEPT))
    _before: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    _time: float = 0.0

    def __deepcopy__(self, memo: dict[int, object]) -> History:
        # A page that opens begins with nothing.
        return History()

    def add(self, status: Mapping[str, Any]) -> None:
        """Take in one look. The first one only says where counters stand."""
        now = float(status["time"])
        counted = {str(row["id"]): {name: float(row["totals"][name]) for name in _COUNTED} for row in status["models"]}
        seconds = now - self._time
        if self._time and seconds <= 0:
            # The gateway keeps its page for a moment: the same look again.
            return
        if self._time:
            grown = dict.fromkeys(_COUNTED, 0.0)
            for model, counters in counted.items():
                before = self._before.get(model)
                for name in _COUNTED:
                    # A replica that went took its counters along.
                    grown[name] += max(0.0, counters[name] - before[name]) if before else counters[name]
            self.points.append(
                Point(
                    time=now,
                    requests_per_s=grown["requests"] / seconds,
                    failed_per_s=grown["failed"] / seconds,
                    tokens_per_s=grown["completion_tokens"] / seconds,
                    first_token_s=grown["first_token_s"] / grown["streams"] if grown["streams"] else None,
                    in_flight=in_flight(status),
                )
            )
        self._before, self._time = counted, now


def in_flight(status: Mapping[str, Any]) -> int:
    """Requests that models are answering, through whichever door they came."""
    return sum(int(row["in_flight"]) for row in status["models"])
