"""The Pareto front of measured models as a PNG: quality against latency and against memory, and the limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway_evals.advising import Advice, Candidate
from gateway_evals.errors import EvaluationError

_BLUE, _GREY, _RED = "#1f5fbf", "#8a8f98", "#b3261e"


def draw(advice: Advice, title: str, path: Path) -> None:
    """Write the picture. Raises EvaluationError where the file cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(11, 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    limits = advice.limits
    panels = (
        ("latency_p95_s", "p95 latency of a sample, seconds", limits.max_latency_s),
        ("memory_gib", "memory of one replica, GiB", limits.max_memory_gib),
    )
    figure.suptitle(title, fontsize=12)
    for axes, (cost, label, most) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        _panel(axes, advice, cost)
        axes.set_xlabel(label)
        if most is not None:
            axes.axvline(most, color=_RED, linestyle="--", linewidth=1)
        if limits.min_score is not None:
            axes.axhline(limits.min_score, color=_RED, linestyle="--", linewidth=1)
        _, right = axes.get_xlim()
        axes.set_xlim(0, max(right, (most or 0) * 1.05) * 1.12)
    figure.axes[0].set_ylabel("score")
    legend = "filled: passes · hollow: does not · line: Pareto front · dashed: limits · bars: 95 %"
    figure.supxlabel(legend, fontsize=8, color=_GREY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written: {error.strerror}") from error


def _panel(axes: Any, advice: Advice, cost: str) -> None:
    points = {each.model: each for each in advice.candidates if _at(each, cost) is not None}
    line = [points[name] for name in advice.fronts[cost]]
    axes.plot([_at(each, cost) for each in line], [each.score for each in line], color=_BLUE, linewidth=1, zorder=1)
    for each in points.values():
        x, chosen = _at(each, cost), each is advice.chosen
        color = _BLUE if each.passes else _GREY
        if each.interval is not None:
            axes.vlines(x, each.interval.low, each.interval.high, color=color, linewidth=1, zorder=2)
        axes.plot(x, each.score, "o", markersize=9 if chosen else 7, color=color,
                  markerfacecolor=color if each.passes else "white", zorder=3)  # fmt: skip
        axes.annotate(
            f"{each.model}{' ✓' if chosen else ''}", (x, each.score), xytext=(7, 7), textcoords="offset points",
            fontsize=9, fontweight="bold" if chosen else "normal", zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip
    axes.grid(visible=True, color="#e4e6ea", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _at(each: Candidate, cost: str) -> float | None:
    value: float | None = getattr(each, cost)
    return None if each.score is None else value
