"""`gateway eval advise`: measures the models of a config, and names the smallest that is good enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway_evals.commands import options as option
from gateway_evals.commands.shared import GATE_FAILED, USAGE, AsJson, console, errors, fail, permit_code, print_json

if TYPE_CHECKING:
    from gateway_evals.advising import Advice
    from gateway_evals.evaluation import EvaluationPlan
    from gateway_evals.saved import SavedResult

_TEXT = {"chat", "completions"}


def advise(
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="A suite's YAML file, or a name of `gateway eval ls`.", show_default=False),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", help="Judge a finished run (its id or `last`) instead of measuring.", show_default=False),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A candidate; again for more.", show_default="all that answer with text"),
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option(*option.spelt("max_latency"), min=0, metavar="SECONDS", show_default=False,
                     help="Most for the 95th percentile of a sample's latency, at --concurrency."),
    ] = None,
    max_memory: Annotated[
        float | None,
        typer.Option(*option.spelt("max_memory"), min=0, metavar="GIB", show_default=False,
                     help="Most memory of one replica."),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(*option.spelt("min_score"), metavar="SCORE", show_default=False, help="Least score."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="TASK:METRIC", help="The figure that is the score.",
                     show_default="mean over tasks of each one's first share"),
    ] = None,
    sure: Annotated[
        bool, typer.Option("--sure", help="The score's lower 95 % bound must reach --min-score, not its value alone.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", show_default=False,
                     help="Start a gateway of this config's candidates for as long as it takes, instead of asking a "
                     "running one."),
    ] = None,
    base_url: option.BaseUrl = "http://127.0.0.1:8000",
    api_key: option.ApiKey = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the Pareto front: a .png, or the whole report as .html.", show_default=False),
    ] = None,
    output: option.Output = Path("results"),
    limit: option.Limited = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=1024, help="Samples in flight.")] = 4,
    seed: option.Seed = 1234,
    timeout: option.Timeout = 120.0,
    allow_code: option.AllowCode = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Measure candidates and name the smallest within all limits. Ends with 1 where none is."""
    import asyncio

    from gateway_evals import advising, saved
    from gateway_evals.choosing import choose_suite
    from gateway_evals.errors import EvaluationError, SuiteError
    from gateway_evals.evaluation import EvaluationPlan

    if max_latency is None and max_memory is None and min_score is None:
        fail("say what is enough: --min-score, --max-latency, --max-memory, or several of them", as_json, USAGE)
    if plot is not None and plot.suffix.lower() not in {".png", ".html"}:
        fail(f"--plot {plot}: a .png or an .html file", as_json, USAGE)
    if (suite is None) == (run is None):
        fail("name a --suite to measure, or a --run that is finished", as_json, USAGE)
    permit_code(allow_code)
    limits = advising.Limits(max_latency, max_memory, min_score, sure)
    with errors(as_json, "stopped; nothing is advised"):
        if run is not None:
            results = [each for each in saved.find_run(run, output) if not model or each.model in model]
        else:
            try:
                chosen = choose_suite(suite, {})
            except SuiteError as error:
                fail(error.message, as_json, 2 if Path(suite or "").is_file() else USAGE)
            # Nothing from a cache: a latency is measured now or not at all.
            plan = EvaluationPlan(chosen, model or (), base_url, api_key, output, limit, concurrency, seed, timeout)
            results = asyncio.run(_measured(plan, config))
        if not results:
            raise EvaluationError(f"run {run} has none of the models {', '.join(model or ())}")
        advice = advising.advise(results, limits, metric)
        if plot is not None:
            _draw(advice, results, plot)
        if as_json:
            print_json({**advice.view(), "suite": results[0].suite, "plot": str(plot) if plot else None})
        else:
            _print(advice, plot)
    if advice.chosen is None:
        raise typer.Exit(GATE_FAILED)


async def _measured(plan: EvaluationPlan, config: Path | None) -> list[SavedResult]:
    """Everything that can be wrong with the suite is found before a gateway is started."""
    from contextlib import AsyncExitStack
    from dataclasses import replace

    from gateway_evals import report, saved
    from gateway_evals.errors import EvaluationError
    from gateway_evals.evaluation import choose_models, evaluate_suite, prepare
    from gateway_evals.own_gateway import own_gateway, part_of

    shown = console(stderr=True)
    async with AsyncExitStack() as stack:
        if config is not None:
            part, names = part_of(config, plan.models)
            with shown.status("loading metrics"):
                tasks = prepare(plan)
            with shown.status(f"starting a gateway of {', '.join(names)}"):
                url = await stack.enter_async_context(own_gateway(part))
            plan = replace(plan, base_url=url, api_key=None, models=names)
            client = await stack.enter_async_context(plan.client())
        else:
            client = await stack.enter_async_context(plan.client())
            served = await client.models()
            names = list(plan.models) or [
                each.name
                for each in served.values()
                if not each.facts.keys() & {"targets", "adapter"}
                and each.facts.get("up", True)
                and _TEXT & set(each.facts.get("capabilities", _TEXT))
            ]
            if not names:
                raise EvaluationError(f"{client.root} serves no model that answers with text")
            plan = replace(plan, models=names)
            await choose_models(client, names)
            with shown.status("loading metrics"):
                tasks = prepare(plan)
        with report.bars(shown) as bars:
            _, found = await evaluate_suite(plan, client, tasks, bars)
    return [saved.read_results(each.files[0]) for each in found]


def _draw(advice: Advice, results: list[SavedResult], plot: Path) -> None:
    if plot.suffix.lower() == ".html":
        from gateway_evals.html_report import write_report

        write_report(results, plot)
        return
    from gateway_evals.front_picture import draw

    draw(advice, f"{results[0].suite}: {advice.scored_by}", plot)


def _print(advice: Advice, plot: Path | None) -> None:
    from gateway.console import table

    failed = any(each.failed for each in advice.candidates)
    rows = [
        [
            each.model,
            "–" if each.score is None else f"{each.score:.3f} ± {each.score_error:.3f}",
            "–" if each.latency_p95_s is None else f"{each.latency_p95_s:.2f} s",
            "–" if each.memory_gib is None else f"{each.memory_gib:.2f} GiB",
            *([f"{each.failed} of {each.answered + each.failed}"] if failed else []),
            "[green]passes[/]" if each.passes else "; ".join(each.reasons),
        ]
        for each in advice.candidates
    ]
    columns = ["model", "score", "latency p95", "memory", *(["failed"] if failed else []), ""]
    table(f"smallest first; score: {advice.scored_by}", columns, rows)
    said = console()
    for name, cost in (("latency", "latency_p95_s"), ("memory", "memory_gib")):
        said.print(f"Pareto front of quality and {name}: {', '.join(advice.fronts[cost]) or '–'}", markup=False)
    if plot is not None:
        said.print(f"plot: {plot}", markup=False, soft_wrap=True)
    if advice.chosen is None:
        said.print("[bold red]✗[/] no model passes: relax a limit, or add a candidate")
    else:
        said.print(f"[green]✓[/] take {advice.chosen.model}: the smallest that passes")
