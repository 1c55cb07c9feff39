"""What was measured: a figure a row, ours beside a peer's, the ratio beside a target; printed, and written as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

Bound = Literal["most", "least"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. Without a peer, ours itself is held against the target; without a target it is told, not judged."""

    group: str
    what: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    how: Literal["ratio", "difference", "ours"] = "ratio"
    """What the target speaks of: ours / peer, ours - peer, or ours."""
    target: float | None = None
    bound: Bound = "most"

    @property
    def judged(self) -> float | None:
        """The number that the target speaks of."""
        if self.how == "ours" or self.peer is None:
            return self.ours
        if self.how == "difference":
            return self.ours - self.peer
        return self.ours / self.peer if self.peer else None

    @property
    def ok(self) -> bool | None:
        if self.target is None or self.judged is None:
            return None
        return self.judged <= self.target if self.bound == "most" else self.judged >= self.target


@dataclass
class Figures:
    """All rows of a run, in the order in which they were measured."""

    rows: list[Figure] = field(default_factory=list[Figure])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """Parts that could not be measured, each with its reason."""

    def add(self, *rows: Figure) -> None:
        self.rows.extend(rows)

    def print(self, console: Console) -> None:
        table = Table(title="Measured in one run on this machine", title_justify="left")
        for column in ("", "what"):
            table.add_column(column)
        for column in ("ours", "peer", "ratio", "target"):
            table.add_column(column, justify="right")
        table.add_column("")
        group = ""
        for row in self.rows:
            if row.group != group and group:
                table.add_section()
            shown = row.group if row.group != group else ""
            group = row.group
            verdict = {True: "[green]ok[/]", False: "[red]miss[/]", None: ""}[row.ok]
            peer = "" if row.peer is None else f"{_number(row.peer)} {row.peer_name}".strip()
            table.add_row(shown, row.what, f"{_number(row.ours)} {row.unit}", peer, _judged(row), _target(row), verdict)
        console.print(table)
        for part, reason in self.failed.items():
            console.print(f"[red]not measured[/] {part}: {reason}", soft_wrap=True)
        judged = [row.ok for row in self.rows if row.ok is not None]
        console.print(f"{sum(judged)} of {len(judged)} targets are met")

    def write(self, folder: Path) -> Path:
        """`bench-<time>.json`, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"bench-{time.strftime('%Y%m%dT%H%M%S')}.json"
        rows = [{**asdict(row), "judged": row.judged, "ok": row.ok} for row in self.rows]
        machine = {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg(), "platform": platform.platform()}
        half = path.with_suffix(".part")
        half.write_text(json.dumps({"machine": machine, "figures": rows, "failed": self.failed}, indent=2) + "\n")
        half.rename(path)
        return path


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _judged(row: Figure) -> str:
    if row.judged is None or row.how == "ours" or row.peer is None:
        return ""
    return f"{row.judged:.2f} ×" if row.how == "ratio" else f"{row.judged:+.2f}"


def _target(row: Figure) -> str:
    if row.target is None:
        return ""
    unit = " ×" if row.how == "ratio" else ""
    return f"{'≤' if row.bound == 'most' else '≥'} {row.target:g}{unit}"
