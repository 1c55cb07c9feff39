"""`gateway eval compare A B`: is the second better, by how much, and could it have been seen?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway_evals.commands.shared import AsJson, console, errors, print_json

if TYPE_CHECKING:
    from gateway_evals.compare import ComparedMetric, Comparison
    from gateway_evals.statistics import Interval

Reference = Annotated[
    str,
    typer.Argument(help="A run's id (its beginning, or `last`), RUN:MODEL, a results file, a folder, or a model."),
]


def compare(
    first: Reference,
    second: Reference,
    run: Annotated[
        str | None,
        typer.Option("--run", help="The run that plain model names are looked for in.", show_default="the newest"),
    ] = None,
    results: Annotated[
        Path, typer.Option("--output", "--output_path", "--output-path", "-o", help="Folder of the results.")
    ] = Path("results"),
    level: Annotated[float, typer.Option("--level", min=0.5, max=0.999, help="Confidence of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", help="For the bootstrap's draws.")] = 1234,
    as_json: AsJson = False,
) -> None:
    """Compare two results sample by sample: McNemar, paired bootstrap, effect size, smallest visible difference."""
    from gateway_evals import compare as comparing
    from gateway_evals import saved

    with errors(as_json):
        pair = [saved.find_result(reference, results, run) for reference in (first, second)]
        found = comparing.compare(pair[0], pair[1], seed=seed, level=level)
        if as_json:
            print_json(found.view())
            return
        _print(found)


def _print(found: Comparison) -> None:
    from gateway.console import table

    alpha, percent = 1 - found.level, f"{found.level:.0%}"
    columns = ["task", "metric", found.first.model, found.second.model, "difference", percent, "p (Holm)", "verdict"]
    title = f"{found.second.model} against {found.first.model}"
    table(title, columns, [_verdict(row, alpha) for row in found.rows])
    columns = ["task", "metric", "samples", "test", "p", "effect", f"its {percent}", "visible from"]
    table("how surely", columns, [_surely(row) for row in found.rows if row.paired is not None])
    for row in found.rows:
        if any(row.alone):
            console().print(
                f"{row.task}:{row.key}: {row.alone[0]} samples were answered by {found.first.model} alone, "
                f"{row.alone[1]} by {found.second.model} alone; they are in no pair",
                markup=False,
                soft_wrap=True,
            )


def _named(row: ComparedMetric) -> list[str]:
    name = row.metric if row.filter == "none" else f"{row.metric} ({row.filter})"
    return [row.task, f"{name} {'↑' if row.higher_is_better else '↓'}"]


def _verdict(row: ComparedMetric, alpha: float) -> list[str]:
    pair = row.paired
    cells = [*_named(row), _number(row.first), _number(row.second)]
    if pair is None:
        return [*cells, "", "", "", row.verdict(alpha)]
    cells += [f"{pair.difference:+.4f}", _interval(pair.interval, "+.4f"), _number(row.adjusted_p)]
    return [*cells, row.verdict(alpha)]


def _surely(row: ComparedMetric) -> list[str]:
    pair = row.paired
    if pair is None:
        return []
    samples = str(pair.count) if pair.groups is None else f"{pair.count} in {pair.groups} groups"
    cells = [*_named(row), samples, pair.test, _number(pair.p_value), _number(pair.effect)]
    return [*cells, _interval(pair.effect_interval, ".2f"), _number(pair.detectable)]


def _interval(interval: Interval | None, digits: str) -> str:
    return "-" if interval is None else f"{interval.low:{digits}} … {interval.high:{digits}}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
