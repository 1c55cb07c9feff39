"""How far a run is, in a file for other programs: replaced whole, a few times a second. Knows no terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVERY_S = 0.25


@dataclass(slots=True)
class _Count:
    total: int
    done: int = 0
    failed: int = 0


class ProgressFile:
    """`add` a model, then call what it returned after each sample. JSON: `{done, failed, total, eta_s, models}`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._models: dict[str, _Count] = {}
        self._first: float | None = None
        self._written = 0.0

    def add(self, model: str, total: int) -> Callable[[bool], None]:
        count = self._models[model] = _Count(total)
        self._write()

        def advance(answered: bool) -> None:
            now = time.monotonic()
            self._first = now if self._first is None else self._first
            count.done += 1
            count.failed += not answered
            if now - self._written >= EVERY_S or count.done == count.total:
                self._write()

        return advance

    def _write(self) -> None:
        self._written = time.monotonic()
        total = sum(count.total for count in self._models.values())
        done = sum(count.done for count in self._models.values())
        eta_s: float | None = None
        if self._first is not None and done > 1:
            eta_s = round((self._written - self._first) / (done - 1) * (total - done), 1)
        body: dict[str, Any] = {
            "done": done,
            "failed": sum(count.failed for count in self._models.values()),
            "total": total,
            "eta_s": eta_s,
            "models": {
                name: {"done": count.done, "failed": count.failed, "total": count.total}
                for name, count in self._models.items()
            },
        }
        part = self._path.with_name(f".{self._path.name}.part")
        part.write_text(json.dumps(body), encoding="utf-8")
        part.replace(self._path)


def both(
    first: Callable[[str, int], Callable[[bool], None]], second: Callable[[str, int], Callable[[bool], None]]
) -> Callable[[str, int], Callable[[bool], None]]:
    """Tell two of what happens."""

    def add(model: str, total: int) -> Callable[[bool], None]:
        one, other = first(model, total), second(model, total)

        def advance(answered: bool) -> None:
            one(answered)
            other(answered)

        return advance

    return add
