"""Which rows of a task are asked: the first so many (10), a share of them (0.1), or some in the middle (10-20)."""

from __future__ import annotations

import re

Limit = float | str
"""Rows (1 or more), a share (below 1), or `FROM-TO`: rows from 0, the last one left out."""


def parse_limit(text: str) -> Limit:
    """Raises ValueError that says what is expected."""
    if found := re.fullmatch(r"(\d+)-(\d+)", text.strip()):
        first, end = int(found[1]), int(found[2])
        if first < end:
            return f"{first}-{end}"
    else:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if 0 < value < 1 or (value >= 1 and value.is_integer()):
            return value
    raise ValueError("a number of rows (10), a share of them (0.1), or rows from 0 without the last (10-20)")


def bounds(limit: Limit | None) -> tuple[int, float | None]:
    """The first row that is asked, and what to ask a task for: rows or a share; None for all."""
    if isinstance(limit, str):
        first, _, end = limit.partition("-")
        return int(first), float(end)
    return 0, limit
