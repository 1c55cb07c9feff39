"""`gateway eval resume RUN`: goes on where a run was when something ended it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway_evals.commands import options as option
from gateway_evals.commands.shared import AsJson, console, errors, permit_code


def resume(
    run: Annotated[str, typer.Argument(help="The run's id, the beginning of one, or `last`.")],
    base_url: Annotated[
        str | None,
        typer.Option("--base_url", "--base-url", envvar="GATEWAY_URL", help="The gateway, if it has moved.",
                     show_default="as before"),
    ] = None,
    api_key: option.ApiKey = None,
    output: option.Output = Path("results"),
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, max=1024, show_default="as before", help="Samples in flight.")
    ] = None,
    gate: option.Gates = None,
    baseline: option.Baseline = None,
    no_worse: option.NoWorse = 0.0,
    junit: option.Junit = None,
    markdown: option.Markdown = None,
    report_json: option.JsonReport = None,
    report: option.HtmlReport = None,
    allow_code: option.AllowCode = False,
    progress_file: option.ProgressPath = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Continue a run that was ended, by whatever: no answered sample is asked again, failed ones are."""
    from gateway_evals.choosing import choose_suite
    from gateway_evals.commands.executing import Aims, execute
    from gateway_evals.evaluation import EvaluationPlan
    from gateway_evals.manifest import find_manifest

    permit_code(allow_code)
    with errors(as_json, "stopped; `gateway eval resume` goes on where it was"):
        manifest, folder = find_manifest(run, output)
        if manifest.finished:
            console(stderr=True).print(f"run {manifest.run} is finished; there is nothing to continue", markup=False)
            return
        settings = dict(manifest.settings)
        plan = EvaluationPlan(
            suite=choose_suite(manifest.suite or None, settings),
            models=manifest.models,
            base_url=base_url or manifest.base_url,
            api_key=api_key,
            output=folder,
            limit=manifest.limit,
            concurrency=concurrency or manifest.concurrency,
            seed=manifest.seed,
            timeout_s=manifest.timeout_s,
            fail_on_error=manifest.fail_on_error,
            settings=settings,
            cache=Path(manifest.cache) if manifest.cache else None,
            stream=manifest.stream,
            resumed=manifest,
        )
        aims = Aims(option.gates_of(gate), baseline, no_worse, junit, markdown, report_json, report)
        execute(plan, aims, as_json, progress_file)
