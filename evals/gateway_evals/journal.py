"""What a run has so far: a header that says what was asked of whom, then one line a finished sample, flushed at once.

Whatever ends the run loses none of them; a last line that was cut in two is dropped when the journal is opened again.
Lines come in the order in which samples finish; `in_order` gives them back in the order of their rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from gateway_evals.errors import EvaluationError


class Journal:
    """An append-only file of JSON lines, and where in it each sample stands. Use as a context manager."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open, or begin. Raises OSError, and EvaluationError where the file is another run's."""
        self.path = path
        self.header = json.loads(dump(header))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._places: dict[tuple[str, int], int] = {}
        self._failed: set[tuple[str, int]] = set()
        self._seconds = 0.0
        self._end = self._read()
        self._began = time.monotonic() - self._seconds
        self._file.truncate(self._end)
        if self._end == 0:
            self._append({"journal": self.header})

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> int:
        """Where the last whole line ends."""
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file):
            entry = _whole(line)
            if entry is None:
                break
            if number == 0:
                self._check(entry.get("journal"))
            else:
                self._place(entry, end)
            end += len(line)
        return end

    def _check(self, header: Any) -> None:
        if not isinstance(header, dict):
            raise EvaluationError(f"{self.path} is no journal of a run")
        told = cast("dict[str, Any]", header)
        changed = [f"{key}: {told.get(key)} then, {value} now" for key, value in self.header.items()
                   if told.get(key) != value]  # fmt: skip
        if changed:
            raise EvaluationError(f"{self.path}: what was begun cannot be continued:\n" + "\n".join(changed))

    def _place(self, entry: Mapping[str, Any], place: int) -> None:
        key = (entry["task"], entry["doc_id"])
        self._places[key] = place
        (self._failed.add if "error" in entry else self._failed.discard)(key)
        self._seconds = max(self._seconds, float(entry.get("at", 0.0)))

    def seconds(self) -> float:
        """How long the run has taken: now, and up to the last finished sample of each time before that was ended."""
        return time.monotonic() - self._began

    def answered(self, task: str) -> set[int]:
        """Rows that need not be asked again: those that failed are."""
        return {doc_id for name, doc_id in self._places if name == task and (name, doc_id) not in self._failed}

    def write(self, task: str, doc_id: int, entry: Mapping[str, Any]) -> None:
        """One finished sample. Small writes to a local file: quick enough for the event loop."""
        place = self._end
        whole = {"task": task, "doc_id": doc_id, "at": round(self.seconds(), 3), **entry}
        self._append(whole)
        self._place(whole, place)

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = dump(entry).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise EvaluationError(
                f"{self.path} cannot be written ({error.strerror}): the run can be resumed"
            ) from error
        self._end += len(line)

    def in_order(self, task: str) -> Iterator[dict[str, Any]]:
        """The task's entries by row. Holds one at a time."""
        with self.path.open("rb") as file:
            for _, place in sorted((doc_id, place) for (name, doc_id), place in self._places.items() if name == task):
                file.seek(place)
                yield json.loads(file.readline())


def _whole(line: bytes) -> dict[str, Any] | None:
    """The entry, or None for a line that was never finished."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", entry) if isinstance(entry, dict) else None


def dump(value: object) -> str:
    """JSON as this package writes it: readable, strict (no NaN), foreign objects as text."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
