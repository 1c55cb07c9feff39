"""`gateway adapters prove`: reads arguments and prints. Imports nothing heavy before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway_evals.commands.shared import AsJson, console, errors, find_suite, print_json

if TYPE_CHECKING:
    from gateway_evals.proving import Proof


def prove(
    name: Annotated[str, typer.Argument(help="An adapter: NAME, BASE:NAME, NAME@VERSION or NAME@ALIAS.")],
    suite: Annotated[str, typer.Option("--suite", help="A suite's YAML file, or a name of `gateway eval ls`.")],
    against: Annotated[
        str | None,
        typer.Option("--against", help="A served model with the same weights; default: its base.", show_default=False),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="What decides; default: each task's first.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Names the store; default: as `gateway serve`.", show_default=False),
    ] = None,
    base_url: Annotated[
        str, typer.Option("--base-url", "--url", envvar="GATEWAY_URL", help="The gateway's address.")
    ] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None, typer.Option("--api-key", envvar="GATEWAY_API_KEY", help="A key, where keys are on.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for results and samples.")] = Path("results"),
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Rows a task.", show_default=False)] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=1024, help="Samples in flight.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="For few-shot examples and bootstrap.")] = 1234,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one request.")] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Ask base and adapter the same suite; write to the registry whether the adapter is better, and how surely."""
    import asyncio

    from gateway import cli
    from gateway import config as configs
    from gateway.adapters.registry import Registry
    from gateway.adapters.version import read_reference
    from gateway.state import default_url
    from gateway.store import Store
    from gateway_evals import proving, report
    from gateway_evals.evaluation import EvaluationPlan

    with errors(as_json, "stopped; no verdict was written"):
        wanted = read_reference(name)
        chosen = find_suite(suite, as_json)
        url = configs.load(config or cli.default_config()).server.store or default_url()

        async def whole() -> Proof:
            store = Store(url)
            try:
                registry = Registry(store)
                version = await registry.find(wanted)
                base = against or version.base
                # The very version, whatever its aliases stand for meanwhile.
                models = [base, f"{base}:{version.label}"]
                plan = EvaluationPlan(chosen, models, base_url, api_key, output, limit, concurrency, seed, timeout)
                with report.bars(console(stderr=True)) as bars:
                    return await proving.prove(plan, registry, version, metric, bars)
            finally:
                await store.close()

        proof = asyncio.run(whole())
        if as_json:
            print_json({"adapter": proof.version.label, **proof.view()})
        else:
            _print(proof)


def _print(proof: Proof) -> None:
    from gateway.console import table

    # Two lines a row, so that it fits a terminal.
    rows = [
        [
            f"{row['task']}\n{row['metric']}",
            f"{row['base']:.3f}",
            f"{row['adapter']:.3f}",
            f"{row['difference']:+.3f}"
            + (f"\n{row['interval'][0]:+.3f} … {row['interval'][1]:+.3f}" if row["interval"] else ""),
            f"{row['p_value']:.2g}\n{row['test']}" if row["p_value"] is not None else "–",
            f"{row['wins']} / {row['losses']}",
            str(row["samples"]),
            row["verdict"],
        ]
        for row in proof.view()["rows"]
    ]
    columns = [
        "",
        proof.against,
        proof.version.label,
        "difference\n95 %",
        "p\ntest",
        "won / lost",
        "samples",
        "verdict",
    ]
    table("", columns, rows)
    said = {"better": "[green]better[/] than", "worse": "[red]worse[/] than", "undecided": "not shown to differ from"}
    console().print(f"{proof.version.label} is {said[proof.verdict]} {proof.against}", soft_wrap=True)
