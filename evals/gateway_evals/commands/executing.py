"""What `run` and `resume` have in common: ask, show, judge, write reports. Imports nothing heavy before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gateway_evals.commands.shared import ERROR, GATE_FAILED, console, fail, print_json

if TYPE_CHECKING:
    from gateway_evals.evaluation import EvaluationPlan
    from gateway_evals.gates import Gate, Verdict
    from gateway_evals.saved import SavedResult


@dataclass(frozen=True, slots=True)
class Aims:
    """What a run must reach, and the files that say whether it did."""

    gates: list[Gate] = field(default_factory=list["Gate"])
    baseline: str | None = None
    no_worse: float = 0.0
    junit: Path | None = None
    markdown: Path | None = None
    json: Path | None = None
    html: Path | None = None


def execute(plan: EvaluationPlan, aims: Aims, as_json: bool, progress_file: Path | None = None) -> None:
    """A run from its first check to its last report. Ends with 1 where a gate fails."""
    import asyncio

    from gateway_evals import report, results, saved
    from gateway_evals.evaluation import choose_models, evaluate_suite, prepare
    from gateway_evals.progress import ProgressFile, both

    shown = console(stderr=True)
    # A baseline that is not there is known before the run, not after it.
    baseline = baseline_of(aims, plan.output)

    async def reach() -> None:
        async with plan.client() as client:
            await choose_models(client, plan.models)

    # A gateway that is not there is the commonest mistake: said before metrics take their seconds to load.
    asyncio.run(reach())
    with shown.status("loading metrics"):
        tasks = prepare(plan)
    _check_gates_exist(aims, [task.name for task, _ in tasks], as_json)

    def told(run: str) -> None:
        shown.print(f"run {run}", markup=False)

    async def whole() -> tuple[results.RunFacts, list[results.ModelResult]]:
        async with plan.client() as client:
            with report.bars(shown) as bars:
                add = both(bars, ProgressFile(progress_file).add) if progress_file else bars
                return await evaluate_suite(plan, client, tasks, add, told)

    facts, found = asyncio.run(whole())
    read = [saved.read_results(result.files[0]) for result in found]
    verdicts = judge(read, aims, baseline)
    write_reports(read, verdicts, aims, as_json)
    if as_json:
        print_json({**results.program_view(facts, found), **gates_view(verdicts)})
    else:
        report.print_report(console(), f"{facts.suite.suite} at {facts.base_url}", found)
        print_verdicts(verdicts)
    end(verdicts)


def baseline_of(aims: Aims, output: Path) -> list[SavedResult]:
    if aims.baseline is None:
        return []
    from gateway_evals import saved

    name, colon, _ = aims.baseline.rpartition(":")
    if colon and name and not Path(aims.baseline).exists():
        return [saved.find_result(aims.baseline, output)]
    return saved.find_run(aims.baseline, output)


def _check_gates_exist(aims: Aims, tasks: list[str], as_json: bool) -> None:
    from gateway_evals.commands.shared import USAGE

    for gate in aims.gates:
        if gate.task not in tasks:
            fail(f"--gate {gate.text!r}: no task {gate.task}; there are: {', '.join(tasks)}", as_json, USAGE)


def judge(results: list[SavedResult], aims: Aims, baseline: list[SavedResult]) -> list[Verdict]:
    from gateway_evals import gates

    verdicts = gates.check_gates(results, aims.gates)
    if baseline:
        verdicts += gates.check_baseline(results, baseline, aims.no_worse)
    return verdicts


def write_reports(results: list[SavedResult], verdicts: list[Verdict], aims: Aims, as_json: bool) -> None:
    import json

    from gateway_evals import summaries

    def as_json_text(results: Sequence[SavedResult], verdicts: Sequence[Verdict]) -> str:
        return json.dumps(summaries.program_report(results, verdicts), indent=2, ensure_ascii=False) + "\n"

    texts = (
        (aims.junit, summaries.junit),
        (aims.markdown, summaries.markdown),
        (aims.json, as_json_text),
    )
    for path, make in texts:
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(make(results, verdicts), encoding="utf-8")
        except OSError as error:
            fail(f"{path} cannot be written: {error.strerror}", as_json, ERROR)
    if aims.html is not None:
        from gateway_evals.html_report import write_report

        write_report(results, aims.html)


def gates_view(verdicts: list[Verdict]) -> dict[str, Any]:
    from dataclasses import asdict

    return {"gates": [asdict(verdict) for verdict in verdicts]} if verdicts else {}


def print_verdicts(verdicts: list[Verdict]) -> None:
    lines = console()
    for each in verdicts:
        lines.print("[green]✓[/] " if each.passed else "[bold red]✗[/] ", end="")
        lines.print(f"{each.gate} on {each.model}: {each.reason}", markup=False, soft_wrap=True)


def end(verdicts: list[Verdict]) -> None:
    """Exit code 1 where a gate failed."""
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(GATE_FAILED)
