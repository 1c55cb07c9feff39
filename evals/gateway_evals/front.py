"""Which models are worth their cost: the Pareto front of cost and quality, and a model's overall score."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gateway_evals.saved import SavedFigure, SavedResult, SavedTask


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the (cost, quality) points that no other one beats: none costs less without being worse. By cost."""
    order = sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1]))
    kept: list[int] = []
    best = -math.inf
    for place in order:
        if points[place][1] > best:
            kept.append(place)
            best = points[place][1]
    return kept


def primary(task: SavedTask) -> SavedFigure | None:
    """The figure that stands for a task: its first that is a share of 1 and better when higher."""
    for figure in task.figures:
        if figure.higher_is_better and (figure.value is None or 0 <= figure.value <= 1):
            return figure
    return None


def overall(result: SavedResult) -> tuple[float, float, int] | None:
    """(score, standard error, tasks): the plain mean over tasks of their primary figures. None where there is none."""
    figures = [figure for task in result.tasks.values() if (figure := primary(task)) and figure.value is not None]
    if not figures:
        return None
    values = [figure.value for figure in figures if figure.value is not None]
    variance = math.fsum((figure.stderr or 0.0) ** 2 for figure in figures)
    return math.fsum(values) / len(values), math.sqrt(variance) / len(values), len(values)
