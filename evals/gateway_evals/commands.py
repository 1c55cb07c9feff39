"""`gateway eval`: reads arguments and prints. Imports nothing heavy before a command runs.

Exit codes: 0 done, 2 an error, 3 a command line that cannot be meant, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from gateway_evals.suite import Suite

ERROR, USAGE, INTERRUPTED = 2, 3, 130

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""Everything wrong with a command line; typer exports only this one of its children."""


class _UsageIsThree(TyperGroup):
    """2 means that a run failed; a mistyped option is told apart from that."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except USAGE_ERROR as error:
            error.exit_code = USAGE  # pyright: ignore[reportAttributeAccessIssue]
            raise


cli = typer.Typer(
    cls=_UsageIsThree,
    help="Measure what a gateway serves: run suites of tasks, list them, check them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="A suite's YAML file, or the name of one of `gateway eval ls`.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def _limit(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1 and not (value >= 1 and value.is_integer()):
        raise typer.BadParameter("a number of rows (10) or a share of them (0.1)")
    return value


@cli.command()
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
    as_json: AsJson = False,
) -> None:
    """Run a suite against served models; write results_*.json and samples_*.jsonl."""
    import asyncio

    from gateway_evals import report, results
    from gateway_evals.client import GatewayClient
    from gateway_evals.evaluation import EvaluationPlan, choose_models, evaluate_suite, prepare

    console = _console(stderr=True)
    with _errors(as_json):
        plan = EvaluationPlan(
            _suite(suite, as_json), model, base_url, api_key, output, limit, concurrency, seed, timeout, fail_on_error
        )

        async def reach() -> None:
            async with GatewayClient(base_url, api_key) as client:
                await choose_models(client, model)

        # A gateway that is not there is the commonest mistake: said before metrics take their seconds to load.
        asyncio.run(reach())
        with console.status("loading metrics"):
            tasks = prepare(plan)

        async def whole() -> tuple[results.RunFacts, list[results.ModelResult]]:
            async with GatewayClient(base_url, api_key, concurrency=concurrency, timeout_s=timeout) as client:
                with report.bars(console) as add:
                    return await evaluate_suite(plan, client, tasks, add)

        facts, found = asyncio.run(whole())
        if as_json:
            _print_json(results.program_view(facts, found))
        else:
            report.print_report(_console(), f"{facts.suite.suite} at {facts.base_url}", found)


@cli.command("ls")
def list_suites(as_json: AsJson = False) -> None:
    """List the suites that ship with this package."""
    from gateway_evals import catalog

    found = catalog.listing()
    if as_json:
        rows = [
            {
                "name": each.name,
                "path": str(each.path),
                "tasks": [task.task for task in each.suite.tasks] if each.suite else [],
                "description": each.suite.description if each.suite else "",
                "licence": each.suite.licence if each.suite else "",
                "minutes": each.suite.minutes if each.suite else None,
                "error": each.problem or None,
            }
            for each in found
        ]
        _print_json(rows)
        return
    from gateway.console import table

    table(
        "",
        ["suite", "tasks", "minutes", "licence", "about"],
        [
            [
                each.name,
                ", ".join(task.task for task in each.suite.tasks),
                f"{each.suite.minutes:g}" if each.suite.minutes else "",
                each.suite.licence,
                each.suite.description,
            ]
            if each.suite
            else [each.name, "", "", "", f"cannot be read: {each.problem.splitlines()[0]}"]
            for each in found
        ],
    )


@cli.command()
def validate(suite: SuiteArgument, as_json: AsJson = False) -> None:
    """Find every error of a suite, its data, templates, metrics and scorers, without a gateway."""
    from gateway_evals.evaluation import EvaluationPlan, prepare

    with _errors(as_json):
        loaded = _suite(suite, as_json)
        tasks = prepare(EvaluationPlan(loaded, ()))
        if as_json:
            _print_json({"ok": True, "tasks": {task.name: task.count for task, _ in tasks}})
            return
        counts = ", ".join(f"{task.name} ({task.count})" for task, _ in tasks)
        _console().print(f"[green]✓[/] {loaded.suite}: {counts}", soft_wrap=True)


def _suite(reference: str, as_json: bool) -> Suite:
    from gateway_evals import catalog
    from gateway_evals.errors import SuiteError
    from gateway_evals.suite_file import load_suite

    try:
        path = catalog.find(reference)
    except SuiteError as error:
        _fail(error.message, as_json, USAGE)
    return load_suite(path)


@contextmanager
def _errors(as_json: bool) -> Generator[None]:
    """Our errors end as clear lines and an exit code; anything else is a defect and keeps its traceback."""
    from gateway.errors import GatewayError

    try:
        yield
    except GatewayError as error:
        _fail(error.message, as_json, ERROR)
    except KeyboardInterrupt:
        _fail("stopped; what was finished stands in journal_*.jsonl of the output folder", as_json, INTERRUPTED)


def _fail(message: str, as_json: bool, code: int) -> NoReturn:
    if as_json:
        _print_json({"ok": False, "errors": message.splitlines()})
    else:
        console = _console(stderr=True)
        for line in message.splitlines():
            console.print("[bold red]error:[/] ", end="")
            console.print(line, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def _console(*, stderr: bool = False) -> Any:
    from gateway import console

    return console.err() if stderr else console.out()


def _print_json(value: object) -> None:
    import json

    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
