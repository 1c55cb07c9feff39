"""`gateway eval gate RUN`: judges a finished run, as `run --gate` does when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway_evals.commands import options as option
from gateway_evals.commands.shared import AsJson, errors, print_json


def gate(
    run: Annotated[str, typer.Argument(help="The run's id, the beginning of one, `last`, a results file or a folder.")],
    gate: option.Gates = None,
    baseline: option.Baseline = None,
    no_worse: option.NoWorse = 0.0,
    output: option.Output = Path("results"),
    junit: option.Junit = None,
    markdown: option.Markdown = None,
    report_json: option.JsonReport = None,
    report: option.HtmlReport = None,
    as_json: AsJson = False,
) -> None:
    """Judge a finished run, or write its JUnit, Markdown and JSON reports. Ends with 1 where a gate fails."""
    from gateway_evals import saved, summaries
    from gateway_evals.commands import executing

    with errors(as_json):
        aims = executing.Aims(option.gates_of(gate), baseline, no_worse, junit, markdown, report_json, report)
        results = saved.find_run(run, output)
        verdicts = executing.judge(results, aims, executing.baseline_of(aims, output))
        executing.write_reports(results, verdicts, aims, as_json)
        if as_json:
            print_json(summaries.program_report(results, verdicts))
        else:
            executing.print_verdicts(verdicts)
        executing.end(verdicts)
