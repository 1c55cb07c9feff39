"""`gateway eval run`: lm-eval's options in both spellings. Imports nothing heavy before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway_evals.commands import options as option
from gateway_evals.commands.shared import USAGE, AsJson, errors, fail, permit_code

SuiteOrNone = Annotated[
    str | None,
    typer.Argument(metavar="[SUITE]", help="A suite's YAML file, or the name of one of `gateway eval ls`."),
]
Models = Annotated[list[str], typer.Option("--model", "-m", help="A served model, route or adapter; again for more.")]


def run(
    model: Models,
    suite: SuiteOrNone = None,
    tasks: option.Tasks = None,
    include_path: option.IncludePath = None,
    base_url: option.BaseUrl = "http://127.0.0.1:8000",
    api_key: option.ApiKey = None,
    output: option.Output = Path("results"),
    limit: option.Limited = None,
    num_fewshot: option.NumFewshot = None,
    apply_chat_template: option.ApplyChatTemplate = None,
    system_instruction: option.SystemInstruction = None,
    gen_kwargs: option.GenKwargs = None,
    seed: option.Seed = 1234,
    concurrency: option.Concurrency = 16,
    timeout: option.Timeout = 120.0,
    fail_on_error: option.FailOnError = None,
    use_cache: option.UseCache = None,
    no_cache: option.NoCache = False,
    no_stream: option.NoStream = False,
    log_samples: option.LogSamples = True,
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
) -> None:
    """Run a suite against served models; write results_*.json and samples_*.jsonl. Ends with 1 where a gate fails."""
    from gateway_evals import cache
    from gateway_evals.choosing import choose_suite
    from gateway_evals.commands.executing import Aims, execute
    from gateway_evals.errors import SuiteError
    from gateway_evals.evaluation import EvaluationPlan

    permit_code(allow_code)
    given: dict[str, Any] = {
        "tasks": [name.strip() for name in tasks.split(",") if name.strip()] if tasks else None,
        "include_path": [str(folder.absolute()) for folder in include_path or ()] or None,
        "num_fewshot": num_fewshot,
        "apply_chat_template": apply_chat_template,
        "system_instruction": system_instruction,
        "gen_kwargs": gen_kwargs or None,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    with errors(as_json, "stopped; `gateway eval resume last` goes on where it was (with --output, if you gave one)"):
        try:
            chosen = choose_suite(suite, settings)
        except SuiteError as error:
            # A name that does not exist is a mistyped command line; a file with mistakes is not.
            missing = not (suite and Path(suite).is_file())
            fail(error.message, as_json, USAGE if missing else 2)
        plan = EvaluationPlan(
            suite=chosen,
            models=model,
            base_url=base_url,
            api_key=api_key,
            output=output,
            limit=limit,
            concurrency=concurrency,
            seed=seed,
            timeout_s=timeout,
            fail_on_error=fail_on_error,
            settings=settings,
            cache=None if no_cache else use_cache or cache.default_path(),
            stream=not no_stream,
        )
        aims = Aims(option.gates_of(gate), baseline, no_worse, junit, markdown, report_json, report)
        execute(plan, aims, as_json, progress_file)
