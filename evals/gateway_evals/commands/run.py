"""`gateway eval run`: reads arguments and prints. Imports nothing heavy before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway_evals.commands.shared import AsJson, SuiteArgument, console, errors, find_suite, print_json


def _limit(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1 and not (value >= 1 and value.is_integer()):
        raise typer.BadParameter("a number of rows (10) or a share of them (0.1)")
    return value


def run(
    suite: SuiteArgument,
    model: Annotated[
        list[str], typer.Option("--model", "-m", help="A served model, route or adapter; again for more.")
    ],
    base_url: Annotated[
        str, typer.Option("--base-url", "--base_url", envvar="GATEWAY_URL", help="The gateway's address.")
    ] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", "--api_key", envvar="GATEWAY_API_KEY", help="A key, where keys are on.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "--output_path", "-o", help="Folder for results and samples.")
    ] = Path("results"),
    limit: Annotated[
        float | None,
        typer.Option(
            "--limit", parser=_limit, metavar="N", help="Rows a task, or a share below 1.", show_default=False
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=1024, help="Samples in flight.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="For few-shot examples, sampling and bootstrap.")] = 1234,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one request.")] = 120.0,
    fail_on_error: Annotated[
        float | None,
        typer.Option(
            "--fail-on-error",
            "--fail_on_error",
            min=0,
            max=1,
            metavar="FRACTION",
            help="Give up beyond this share of failed samples.",
            show_default=False,
        ),
    ] = None,
    progress_file: Annotated[
        Path | None,
        typer.Option(
            "--progress-file",
            "--progress_file",
            help="A file that says how far it is, for other programs.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a suite against served models; write results_*.json and samples_*.jsonl."""
    import asyncio

    from gateway_evals import report, results
    from gateway_evals.client import GatewayClient
    from gateway_evals.evaluation import EvaluationPlan, choose_models, evaluate_suite, prepare
    from gateway_evals.progress import ProgressFile, both

    shown = console(stderr=True)
    with errors(as_json, "stopped; what was finished stands in journal_*.jsonl of the output folder"):
        plan = EvaluationPlan(
            find_suite(suite, as_json),
            model,
            base_url,
            api_key,
            output,
            limit,
            concurrency,
            seed,
            timeout,
            fail_on_error,
        )

        async def reach() -> None:
            async with GatewayClient(base_url, api_key) as client:
                await choose_models(client, model)

        # A gateway that is not there is the commonest mistake: said before metrics take their seconds to load.
        asyncio.run(reach())
        with shown.status("loading metrics"):
            tasks = prepare(plan)

        async def whole() -> tuple[results.RunFacts, list[results.ModelResult]]:
            async with GatewayClient(base_url, api_key, concurrency=concurrency, timeout_s=timeout) as client:
                with report.bars(shown) as bars:
                    add = both(bars, ProgressFile(progress_file).add) if progress_file else bars
                    return await evaluate_suite(plan, client, tasks, add)

        facts, found = asyncio.run(whole())
        if as_json:
            print_json(results.program_view(facts, found))
        else:
            report.print_report(console(), f"{facts.suite.suite} at {facts.base_url}", found)
