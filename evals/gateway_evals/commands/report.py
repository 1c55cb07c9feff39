"""`gateway eval report`: finished runs as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway_evals.commands.shared import AsJson, console, errors, print_json


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="A run's id (its beginning, or `last`), RUN:MODEL, a results file or a folder."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path("report.html"),
    results: Annotated[Path, typer.Option("--results", help="Folder that runs are looked for in.")] = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Write one HTML file, which needs nothing else: figures, intervals, cost, differences and every sample."""
    from gateway_evals import html_report, saved

    with errors(as_json):
        found: list[saved.SavedResult] = []
        for reference in runs:
            named, colon, _ = reference.rpartition(":")
            alone = bool(colon) and not Path(reference).exists() and named != ""
            found += [saved.find_result(reference, results)] if alone else saved.find_run(reference, results)
        found = list({(one.path.resolve(), one.model): one for one in found}.values())
        size = html_report.write_report(found, output)
        if as_json:
            print_json({"report": str(output), "bytes": size, "models": [one.model for one in found]})
            return
        console().print(
            f"[green]✓[/] {output} ({size / 1e6:.1f} MB): {', '.join(one.model for one in found)}", soft_wrap=True
        )
