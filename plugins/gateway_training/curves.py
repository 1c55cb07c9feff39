"""Learning curves as a picture. Knows only numbers."""

# matplotlib is typed in parts.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway_training.checkpoint import Progress


def draw(progress: Progress, title: str, path: Path) -> None:
    """A PNG of both losses by step; the adapter that was kept is marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes: Any = figure.subplots()
    steps = range(1, len(progress.losses) + 1)
    axes.plot(steps, progress.losses, color="#b9c3d0", linewidth=1, label="training, each step")
    axes.plot(steps, _smooth(progress.losses), color="#3b6ea5", linewidth=2, label="training, mean of ten")
    axes.plot(*zip(*progress.looks, strict=True), color="#c8553d", marker="o", markersize=4, label="validation")
    axes.axvline(progress.best_step, color="#444444", linestyle=":", linewidth=1, label="kept")
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("step")
    axes.set_ylabel("loss per answer token (nats)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


def _smooth(values: list[float], width: int = 10) -> list[float]:
    parts = [values[max(0, end - width) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]
