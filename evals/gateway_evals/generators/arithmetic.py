"""Sums that are drawn by seed: one step or several, small numbers or large."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from gateway_evals.python_task import PythonTask

SIGNS = {"+": "plus", "-": "minus", "*": "times"}


def rows(
    size: int = 100, seed: int = 1, steps: int = 1, largest: int = 20
) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """`steps` operations on numbers up to `largest`; results are never negative."""
    if size < 1 or steps < 1 or largest < 2:
        raise ValueError("size and steps are at least 1, largest at least 2")
    draw = random.Random(f"arithmetic:{seed}:{steps}:{largest}")  # noqa: S311 (no secret)
    return {"test": [_sum(draw, steps, largest) for _ in range(size)], "train": _examples(steps, largest)}


def _examples(steps: int, largest: int) -> list[Mapping[str, Any]]:
    draw = random.Random(f"arithmetic examples:{steps}:{largest}")  # noqa: S311 (no secret)
    return [_sum(draw, steps, largest) for _ in range(8)]


def _sum(draw: random.Random, steps: int, largest: int) -> Mapping[str, Any]:
    value = draw.randint(1, largest)
    text = str(value)
    for _ in range(steps):
        sign = draw.choice(["+", "-"] if steps > 1 else list(SIGNS))
        other = draw.randint(1, min(largest, value) if sign == "-" else largest)
        value = value + other if sign == "+" else value - other if sign == "-" else value * other
        text = f"{text} {sign} {other}"
    return {"sum": text, "result": value}


def task() -> PythonTask:
    spec = {
        "doc_to_text": "{{sum}} =",
        "doc_to_target": "result",
        "fewshot_split": "train",
        "num_fewshot": 4,
        "fewshot_delimiter": "\n",
        "fewshot_config": {"sampler": "first_n"},
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12},
        "filter_list": [
            {
                "name": "number",
                "filter": [{"function": "regex", "regex_pattern": r"(-?\d+)"}, {"function": "take_first"}],
            }
        ],
        "metric_list": [{"metric": "exact_match"}],
        "metadata": {"version": 1},
    }
    return PythonTask(spec, rows)
