"""Sampling parameters of a chat request: fields, presets, and what of them goes into the body. Knows no Gradio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.tabs import AskError


@dataclass(frozen=True, slots=True)
class Number:
    """One parameter that may be left out."""

    name: str
    """In the request's body."""
    label: str
    least: float = -math.inf
    most: float = math.inf
    whole: bool = False

    def read(self, text: str | None) -> float | int | None:
        """What was written in its field; None where nothing was. Raises AskError."""
        written = (text or "").strip().replace(",", ".")
        if not written:
            return None
        kind = "a whole number" if self.whole else "a number"
        try:
            value = int(written) if self.whole else float(written)
        except ValueError as error:
            raise AskError(f"{self.label} is {kind}, not “{written[:40]}”. Empty means the engine's own.") from error
        if not self.least <= value <= self.most:
            upper = "" if math.isinf(self.most) else f" and at most {self.most:g}"
            raise AskError(f"{self.label} is {kind} of at least {self.least:g}{upper}, not {written}.")
        return value


NUMBERS = (
    Number("top_p", "Top p", 0, 1),
    Number("top_k", "Top k", -1, whole=True),
    Number("min_p", "Min p", 0, 1),
    Number("presence_penalty", "Presence penalty", -2, 2),
    Number("frequency_penalty", "Frequency penalty", -2, 2),
    Number("repetition_penalty", "Repetition penalty", 0, 2),
    Number("seed", "Seed", -(2**63), 2**63 - 1, whole=True),
)
"""An empty field is not sent: the engine's own default holds."""

PRESETS: dict[str, dict[str, float]] = {
    "Greedy: always the likeliest": {"temperature": 0},
    "Precise": {"temperature": 0.2, "top_p": 0.9},
    "Balanced": {"temperature": 0.7, "top_p": 0.95},
    "Creative": {"temperature": 1.0, "min_p": 0.05},
    "Wild": {"temperature": 1.4, "min_p": 0.02},
}
"""What each sets. Every other number is emptied; stop strings and max tokens stay."""


def preset(name: str) -> tuple[float, list[str]]:
    """Temperature, and the texts of the fields in the order of NUMBERS."""
    chosen = PRESETS[name]
    return chosen["temperature"], [f"{chosen[one.name]:g}" if one.name in chosen else "" for one in NUMBERS]


def parameters(temperature: float, max_tokens: int, numbers: Sequence[str | None], stop: str) -> dict[str, Any]:
    """What goes into the body. `numbers` in the order of NUMBERS; `stop`: one string a line. Raises AskError."""
    found: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    for number, text in zip(NUMBERS, numbers, strict=True):
        value = number.read(text)
        if value is not None:
            found[number.name] = value
    if lines := [line for line in stop.split("\n") if line]:
        found["stop"] = lines
    return found
