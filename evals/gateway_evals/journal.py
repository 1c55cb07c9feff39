"""What a run has so far: one line a finished sample, flushed at once, so that whatever ends the run loses none of them.

Lines come in the order in which samples finish; `in_order` gives them back in the order of their tasks and rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file of JSON lines, and where in it each sample stands. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("xb")
        self._places: dict[tuple[str, int], int] = {}
        self._end = 0

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, task: str, doc_id: int, entry: Mapping[str, Any]) -> None:
        """One finished sample. Small writes to a local file: quick enough for the event loop."""
        line = dump({"task": task, "doc_id": doc_id, **entry}).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        self._places[task, doc_id] = self._end
        self._end += len(line)

    def in_order(self, task: str) -> Iterator[dict[str, Any]]:
        """The task's entries by row. Holds one at a time."""
        with self.path.open("rb") as file:
            for _, place in sorted((doc_id, place) for (name, doc_id), place in self._places.items() if name == task):
                file.seek(place)
                yield json.loads(file.readline())


def dump(value: object) -> str:
    """JSON as this package writes it: readable, strict (no NaN), foreign objects as text."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
